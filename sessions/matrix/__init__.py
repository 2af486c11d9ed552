"""Wheels of several targets for several Pythons."""
