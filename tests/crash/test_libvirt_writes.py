"""The daemon is killed after every write of a spawn and a destroy of a real guest."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crash.cases import Case
from tests.crash.dying_daemon import AFTER
from tests.crash.lives import Lives, points
from tests.crash.verdict import holds
from tests.daemon import DaemonProcess

pytestmark = pytest.mark.libvirt
SPAWN = Case("SpawnInstance")
DESTROY = Case("DestroyInstance", ("SpawnInstance",), {"destroy_disks": True})


@pytest.fixture(scope="module")
def lives(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[Lives]:
    """Daemons over embedded QEMU."""
    yield Lives(short_folder(), backend="libvirt", place_images=guest_images)


@pytest.mark.parametrize("case", [SPAWN, DESTROY], ids=str)
def test_death_after_every_write_leaves_a_guest_or_nothing(case: Case, lives: Lives) -> None:
    with lives.life(lives.counting_plan()) as daemon:
        caller = lives.caller(daemon)
        kinds = lives.counted(case, caller)
        caller.call("DestroyInstance", destroy_disks=True)
    death = None
    for point in points(case, kinds, sides=[AFTER]):
        with lives.life(str(point)) as daemon:
            if death is not None:
                holds(daemon, death)
            death = lives.die(daemon, case, point, writes=len(kinds))
    with lives.life() as daemon:
        assert death is not None
        holds(daemon, death)
