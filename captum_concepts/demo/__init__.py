"""Music of known truth, a small classifier of it, and how well an explanation recovers the truth."""
