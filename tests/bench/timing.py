"""Taking times: of several calls in turns, so that noise hits all of them."""

import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles

Call = Callable[[], object]


def interleaved(
    calls: Mapping[str, Call], *, rounds: int, repeats: int = 1
) -> dict[str, list[float]]:
    """Seconds of every call by its name: `repeats` of each in a row, `rounds` times."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].extend(timed(call) for _ in range(repeats))
    return taken


def medians(calls: Mapping[str, Call], *, rounds: int, repeats: int = 1) -> dict[str, float]:
    """Median seconds of every call by its name; the first round only warms up."""
    interleaved(calls, rounds=1, repeats=repeats)
    taken = interleaved(calls, rounds=rounds, repeats=repeats)
    return {name: median(seconds) for name, seconds in taken.items()}


def timed(call: Call) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def p99(seconds: list[float]) -> float:
    """The 99th percentile."""
    return quantiles(seconds, n=100)[-1]
