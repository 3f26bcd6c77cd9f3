"""Consoles in use: their output, who writes, tokens, connections and recordings."""
