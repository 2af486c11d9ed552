"""From settings to a wheel in wheels/."""
