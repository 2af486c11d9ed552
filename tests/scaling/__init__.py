"""More than one machine, played on one: shared caches, build servers, and what they bring."""
