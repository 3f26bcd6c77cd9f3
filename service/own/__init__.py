"""Verbs that the daemon carries out itself: from the truth, the book, the hub and the logs."""
