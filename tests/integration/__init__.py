"""The real chain, built small."""
