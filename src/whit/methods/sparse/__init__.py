"""Networks with many zeros."""
