"""From ``targets.toml`` and the options to a BuildSpec."""
