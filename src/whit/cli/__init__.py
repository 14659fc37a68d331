"""The command line, `whit`."""
