"""From the command line to a nox session that runs a phase."""
