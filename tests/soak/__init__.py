"""The soak: random verbs of many clients, daemons killed at random, invariants after each round.

    python -m tests.soak [--minutes N] [--backend fake|libvirt|both] [--seed N]

Bounded in time; exits 1 when an invariant was broken, and says the seed that
repeats it. The invariants are those of docs/reliability.md.
"""
