"""The documents of a release, made from records."""
