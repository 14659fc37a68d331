"""Pieces of a group of networks that is grown by reflection, for any training loop."""
