"""The daemon is killed around every write of a spawn and a destroy of a real guest."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crash.cases import DESTROY, SPAWN
from tests.crash.lives import Call, Lives, places
from tests.crash.verdict import end_machines, hold_through
from tests.daemon import DaemonProcess

pytestmark = pytest.mark.libvirt


@pytest.fixture(scope="module")
def lives(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[Lives]:
    """Daemons over embedded QEMU."""
    folder = short_folder()
    yield Lives(folder, backend="libvirt", place_images=guest_images)
    end_machines(folder)


def test_death_around_every_write_leaves_a_guest_or_nothing(lives: Lives) -> None:
    writes = lives.count([SPAWN, DESTROY])
    calls = [
        [Call.of(case, *place) for place in places(writes[str(case)])] for case in (SPAWN, DESTROY)
    ]
    hold_through(lives, calls, writes)
