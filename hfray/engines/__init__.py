"""The engines by name."""
