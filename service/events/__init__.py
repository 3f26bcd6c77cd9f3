"""Events: numbered, kept for a while, fanned out to watchers."""
