"""A hypervisor in memory, for controllers to be developed and tested against.

It is a real state machine: the same checks, steps, events and console logs as a
hypervisor, in milliseconds, and faults and delays on demand. Instances live as
long as the daemon.
"""

from backends.fake.backend import FakeBackend

__all__ = ["FakeBackend"]
