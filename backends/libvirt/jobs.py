"""What jobs came to: libvirt tells it once, in an event, and forgets it with the domain."""

import threading
from collections.abc import Mapping
from typing import Any

Stats = Mapping[str, Any]


class JobBook:
    """Statistics of ended jobs, for who expects them. Callable from any thread."""

    def __init__(self) -> None:
        self._ended: dict[str, Stats] = {}
        self._expected: set[str] = set()
        self._changed = threading.Condition()

    def expect(self, instance_id: str) -> None:
        """Somebody will ask for what the next job comes to."""
        with self._changed:
            self._expected.add(instance_id)
            self._ended.pop(instance_id, None)

    def tell(self, instance_id: str, stats: Stats) -> None:
        """A job has ended; does not block."""
        with self._changed:
            if instance_id in self._expected:
                self._ended[instance_id] = stats
                self._changed.notify_all()

    def take(self, instance_id: str, *, timeout_s: float) -> Stats:
        """What the job came to; empty where nobody has said so in time."""
        with self._changed:
            self._changed.wait_for(lambda: instance_id in self._ended, timeout_s)
            self._expected.discard(instance_id)
            return self._ended.pop(instance_id, {})
