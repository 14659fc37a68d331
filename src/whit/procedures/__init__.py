"""Hooks and loops that several methods share."""
