"""The package index of the releases in ``dist/``."""
