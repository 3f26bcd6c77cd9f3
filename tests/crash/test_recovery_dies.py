"""The daemon is killed once more, while it recovers from having been killed."""

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.cases import Case
from tests.crash.dying_daemon import AFTER, DIED, Point
from tests.crash.lives import Death, Lives, points
from tests.crash.verdict import holds
from tests.daemon import DaemonProcess

SPAWN = Case("SpawnInstance")
DESTROY = Case("DestroyInstance", ("SpawnInstance",), {"destroy_disks": True})


@pytest.fixture(scope="module")
def lives(short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]) -> Lives:
    """Daemons over the fake."""
    return Lives(short_folder(), backend="fake", place_images=guest_images)


@pytest.mark.parametrize(
    ("case", "number", "writes", "expected"),
    [
        (SPAWN, 4, 6, ["undone", "undone", "undone", "end"]),
        (SPAWN, 5, 6, ["step", "step", "step", "commit", "end"]),
        (DESTROY, 4, 5, ["step", "step", "step", "end"]),
    ],
    ids=["rolling back a spawn", "finishing a spawn", "finishing a destroy"],
)
def test_death_around_every_write_of_a_recovery_is_recovered_from(
    case: Case, number: int, writes: int, expected: list[str], lives: Lives
) -> None:
    """`number` is the write after which the daemon dies first; `expected` are those after it."""
    first = first_death(lives, case, number, writes)
    with lives.life(lives.counting_plan()) as daemon:
        holds(daemon, first)
    assert lives.written(case.verb, first.instance_id)[: len(expected)] == expected
    for again in points(case, expected):
        death = first_death(lives, case, number, writes)
        point = Point(case.verb, death.instance_id, again.number, again.side)
        with lives.life(str(point), wait=False) as daemon:
            assert daemon.wait() == DIED, daemon.log()
        with lives.life() as daemon:
            ended = (again.number, again.side) == (len(expected), AFTER)
            holds(daemon, replace(death, ended=ended))


def first_death(lives: Lives, case: Case, number: int, writes: int) -> Death:
    """The death from which the daemon will be recovering."""
    point = Point(case.verb, str(uuid.uuid4()), number, AFTER)
    with lives.life(str(point)) as daemon:
        return lives.die(daemon, case, point, writes=writes)
