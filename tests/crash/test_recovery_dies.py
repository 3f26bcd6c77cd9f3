"""The daemon is killed once more, while it recovers from having been killed."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.crash.cases import Case
from tests.crash.dying_daemon import AFTER, BEFORE, DIED, Point
from tests.crash.lives import Lives, points
from tests.crash.verdict import holds
from tests.daemon import DaemonProcess

SPAWN = Case("SpawnInstance")
DESTROY = Case("DestroyInstance", ("SpawnInstance",), {"destroy_disks": True})


@pytest.fixture(scope="module")
def lives(short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]) -> Lives:
    """Daemons over the fake."""
    return Lives(short_folder(), backend="fake", place_images=guest_images)


@dataclass(frozen=True)
class Recovery:
    """What a daemon does that comes back after it died right after a write of a verb."""

    name: str
    case: Case
    died_after: int
    writes: int
    """How many there are when nothing happens."""
    expected: tuple[str, ...]
    """Writes of the recovery."""
    sides: tuple[str, ...] = (AFTER,)

    def __str__(self) -> str:
        return self.name


RECOVERIES = (
    Recovery(
        "rolling back a spawn", SPAWN, 4, 6, ("undone", "undone", "undone", "end"), (BEFORE, AFTER)
    ),
    Recovery("finishing a spawn", SPAWN, 5, 6, ("step", "step", "step", "commit", "end")),
    Recovery("finishing a destroy", DESTROY, 4, 5, ("step", "step", "step", "end")),
)


@pytest.mark.parametrize("recovery", RECOVERIES, ids=str)
def test_death_around_every_write_of_a_recovery_is_recovered_from(
    recovery: Recovery, lives: Lives
) -> None:
    case, writes = recovery.case, recovery.writes
    first = Point(case.verb, str(uuid.uuid4()), recovery.died_after, AFTER)
    with lives.life(str(first)) as daemon:
        death = lives.die(daemon, case, first, writes=writes)
    with lives.life(lives.counting_plan()) as daemon:
        holds(daemon, death)
        written = lives.written(case.verb, death.instance_id)
        assert written[: len(recovery.expected)] == list(recovery.expected)
    earlier = None
    for again in points(case, recovery.expected, sides=recovery.sides):
        first = replace(again, number=recovery.died_after, side=AFTER)
        with lives.life(str(first)) as daemon:
            if earlier is not None:
                holds(daemon, earlier)
            death = lives.die(daemon, case, first, writes=writes)
        with lives.life(str(again), wait=False) as daemon:
            assert daemon.wait() == DIED, daemon.log()
        ended = (again.number, again.side) == (len(recovery.expected), AFTER)
        earlier = replace(death, ended=ended)
    with lives.life() as daemon:
        assert earlier is not None
        holds(daemon, earlier)
