"""The documents of a release, rendered from records."""
