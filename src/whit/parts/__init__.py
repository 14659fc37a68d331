"""Pieces used by several methods: tensor and module code, no loop."""
