"""What three phases or more use. Imports no phase."""
