"""Guests on a bridge in a network namespace of their own, and what passes between them."""
