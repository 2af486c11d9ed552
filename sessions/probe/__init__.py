"""What is on this machine, and whether a target can be built with it."""
