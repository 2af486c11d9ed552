"""Experiments on shared caches and build servers: run by hand, their conclusions are in docs/."""
