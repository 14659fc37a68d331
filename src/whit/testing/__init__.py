"""The public conformance battery."""
