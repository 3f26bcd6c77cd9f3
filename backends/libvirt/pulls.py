"""Pulls, and the questions that must not meet the end of one.

QEMU (7.2) crashes where it is asked for all of its block nodes after a pull has ended, well or not,
and before libvirt has dismissed the job: the filter that the pull had on the disk is still there,
and is on nothing ("segfault" in bdrv_refresh_filename). libvirt asks so for statistics of disks.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import structlog

PATIENCE_S = 3.0
log = structlog.get_logger()


class Pulls:
    """Which machines have pulls under way, and who asks about disks. Callable from any thread."""

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._pulled: Counter[str] = Counter()
        self._asking: dict[object, str] = {}

    @contextmanager
    def under_way(self, instance_id: str) -> Iterator[None]:
        """Inside, nobody begins to ask about the machine's disks.

        Who does already is waited for; not for long, as another machine may never answer.
        """
        with self._changed:
            self._pulled[instance_id] += 1
            before = {asker for asker, of in self._asking.items() if of in ("", instance_id)}
            have_ended = partial(before.isdisjoint, self._asking)
            if not self._changed.wait_for(have_ended, self._patience_s):
                log.warning("statistics still asked for while a pull begins", instance=instance_id)
        try:
            yield
        finally:
            with self._changed:
                self._pulled[instance_id] -= 1
                self._pulled += Counter()  # forgets those that have none

    @contextmanager
    def asking(self, instance_id: str = "") -> Iterator[frozenset[str]]:
        """Inside, that machine, or each, may be asked about its disks, but for those given."""
        me = object()
        with self._changed:
            self._asking[me] = instance_id
            pulled = frozenset(self._pulled)
        try:
            yield pulled
        finally:
            with self._changed:
                del self._asking[me]
                self._changed.notify_all()
