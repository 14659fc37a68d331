"""Packed networks against what a user would run instead: interleaved timings in one process."""
