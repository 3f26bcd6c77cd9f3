"""The daemon is killed after every write of a spawn and a destroy of a real guest."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.cases import DESTROY, SPAWN
from tests.crash.dying_daemon import AFTER
from tests.crash.lives import Call, Lives, points, rounds
from tests.crash.verdict import hold
from tests.daemon import DaemonProcess

pytestmark = pytest.mark.libvirt


@pytest.fixture(scope="module")
def lives(short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]) -> Lives:
    """Daemons over embedded QEMU."""
    return Lives(short_folder(), backend="libvirt", place_images=guest_images)


def test_death_after_every_write_leaves_a_guest_or_nothing(lives: Lives) -> None:
    writes = lives.count([SPAWN, DESTROY])
    calls = [
        [Call.of(case, number, AFTER) for number in range(1, len(writes[str(case)]) + 1)]
        for case in (SPAWN, DESTROY)
    ]
    died = None
    for together in rounds(calls):
        with lives.mortal_life(points(together)) as daemon:
            if died is not None:
                hold(lives, daemon, died)
            died = lives.die(daemon, together, writes)
    with lives.life() as daemon:
        assert died is not None
        hold(lives, daemon, died)
        lives.clear(daemon)
