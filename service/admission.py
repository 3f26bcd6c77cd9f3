"""How many calls of a class may be under way: a flood of one class starves no other."""

from collections import Counter
from collections.abc import Iterator, Mapping
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


class Admission:
    """Counts the calls under way by class. Event loop only."""

    def __init__(self, limits: Mapping[str, int] = DEFAULT_LIMITS) -> None:
        self._limits = dict(limits)
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def enter(self, verb: Verb) -> Iterator[None]:
        """Holds a place for the duration; raises OverloadedError where there is none."""
        kind = verb.kind_name
        if self._under_way[kind] >= self._limits[kind]:
            raise OverloadedError(
                f"{self._limits[kind]} calls of kind {kind} are under way already",
                metadata={"class": kind, "limit": str(self._limits[kind])},
            )
        self._under_way[kind] += 1
        try:
            yield
        finally:
            self._under_way[kind] -= 1
