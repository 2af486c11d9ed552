"""The session ``matrix``: the wheels of several targets for several Pythons."""
