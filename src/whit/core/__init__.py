"""The one procedure, and the values that describe it."""
