"""How many calls of a class may be under way: a flood of one class starves no other."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from service.errors import OverloadedError
from service.verbs import Verb

DEFAULT_LIMITS: Mapping[str, int] = {
    "READ": 512,
    "MUTATION": 256,
    "LONG_RUNNING": 256,
    "STREAM": 2048,
    "CONTROL": 64,
}


_MOST_RETRY_S = 30


class Queue:
    """Those that were turned away from a class, who each are told when to come again.

    They do not wait here, so nobody knows of them but their number: it falls by the
    class's `limit` each second, and so many at a time are asked to come again. A crowd
    that is told one moment would return as a crowd.
    """

    def __init__(
        self, kind: str, *, limit: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kind = kind
        self._limit = limit
        self._clock = clock
        self._length = 0.0
        self._counted_at = clock()

    def turned_away(self, message: str) -> OverloadedError:
        """The error for one more, with its place in `queue_position`, from 1."""
        now = self._clock()
        come_again = (now - self._counted_at) * self._limit
        self._length, self._counted_at = max(0.0, self._length - come_again) + 1, now
        position = math.ceil(self._length)
        return OverloadedError(
            message,
            metadata={
                "class": self._kind,
                "limit": str(self._limit),
                "queue_position": str(position),
            },
            retry_after_s=min(math.ceil(position / self._limit), _MOST_RETRY_S),
        )


class Admission:
    """Counts the calls under way by class. Event loop only."""

    def __init__(self, limits: Mapping[str, int] = DEFAULT_LIMITS) -> None:
        self._limits = dict(limits)
        self._under_way: Counter[str] = Counter()
        self._queues = {kind: Queue(kind, limit=limit) for kind, limit in limits.items()}

    @contextmanager
    def enter(self, verb: Verb) -> Iterator[None]:
        """Holds a place for the duration; raises OverloadedError where there is none."""
        kind = verb.kind_name
        if self._under_way[kind] >= self._limits[kind]:
            raise self._queues[kind].turned_away(
                f"{self._limits[kind]} calls of kind {kind} are under way already"
            )
        self._under_way[kind] += 1
        try:
            yield
        finally:
            self._under_way[kind] -= 1
