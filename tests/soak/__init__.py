"""`make soak`: random verbs of many controllers, and a daemon that is killed beneath them.

A seed is printed, and `--seed` takes it again: the verbs come anew in the same
order for each controller, though never at the same moments.
"""
