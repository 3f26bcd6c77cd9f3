"""From a specification to what is to be made of it, the same for every backend.

A plan knows no host: what it finds at fault is wrong everywhere. What it needs of
a host (features, memory, disk) it lists, and the backend holds that against
what its probe has found.
"""

from backends.plan.plan import InstancePlan

__all__ = ["InstancePlan"]
