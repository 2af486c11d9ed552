"""The package index of what was released."""
