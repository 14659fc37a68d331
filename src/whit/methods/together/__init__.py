"""Networks that learn from one another."""
