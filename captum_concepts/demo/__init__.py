"""Music whose truth is known, a small classifier of it, and how well an explanation recovers that truth."""
