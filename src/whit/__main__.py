"""Run the command line with `python -m whit`."""

from whit.cli.app import main

main()
