"""Watches a guest on both hosts, so closely that two copies of it are seen.

What a guest prints it can only print where it runs: its console logs say on which host
that is, whatever libvirtd and daemons believe, or whether they live. A guest that counts
aloud (tests/lab/guests.py) prints five times a second.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType

from backends.console_log import ConsoleLog
from tests.lab.hosts import LabHost

_LOOK_S = 0.04
# A log grows by lines; what is more is the hole with which a destination begins it.
_MOST_BYTES = 1 << 16


@dataclass
class Seen:
    """What was seen of one host."""

    size: int | None = None
    """Of the guest's console log."""
    printed: list[float] = field(default_factory=list)
    """When the guest printed there."""
    most_machines: int = 0


class Witness:
    """Looks on while a `with` block runs; `faults` are told after it."""

    def __init__(self, hosts: Sequence[LabHost], instance_id: str) -> None:
        self._hosts = hosts
        self._instance_id = instance_id
        self.seen = [Seen() for _ in hosts]
        self._done = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="witness")
        self._watch: Future[None] | None = None

    def __enter__(self) -> "Witness":
        self._watch = self._pool.submit(self._run)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._pool.shutdown()
        assert self._watch is not None
        self._watch.result()  # a witness that has looked away has seen nothing

    def faults(self) -> list[str]:
        """Everything that says that two copies ran."""
        faults = [
            f"{seen.most_machines} machines of {self._instance_id} on host {number}"
            for number, seen in enumerate(self.seen)
            if seen.most_machines > 1
        ]
        one, other = (seen.printed for seen in self.seen)
        if one and other and not (one[-1] < other[0] or other[-1] < one[0]):
            faults.append(
                f"two copies ran: one host printed {one[0]:.2f} to {one[-1]:.2f} s, "
                f"the other {other[0]:.2f} to {other[-1]:.2f} s"
            )
        return faults

    def standstill_s(self) -> float:
        """The longest time in which nobody printed."""
        moments = sorted(moment for seen in self.seen for moment in seen.printed)
        return max((b - a for a, b in pairwise(moments)), default=0.0)

    def _run(self) -> None:
        while not self._done.wait(_LOOK_S):
            for host, seen in zip(self._hosts, self.seen, strict=True):
                self.look(host, seen)

    def look(self, host: LabHost, seen: Seen) -> None:
        """One look at a host."""
        size = _printed_bytes(host, self._instance_id)
        if size is not None and seen.size is not None and 0 < size - seen.size < _MOST_BYTES:
            seen.printed.append(time.monotonic())
        seen.size = size
        seen.most_machines = max(seen.most_machines, len(host.machines(self._instance_id)))


def _printed_bytes(host: LabHost, instance_id: str) -> int | None:
    """How long the guest's console log is there; None where there is none."""
    try:
        log = ConsoleLog.found_in(host.daemon.state_dir / "instances" / instance_id)
        return None if log is None else log.path.stat().st_size
    except FileNotFoundError:
        return None
