"""The daemon is killed around every write of a spawn and a destroy of a real guest, and more;
and operations on real guests are cancelled in every step."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.cases import (
    ATTACH_VOLUME,
    CONFIRM,
    DESTROY,
    FINISH,
    IS_OFF,
    REBUILD,
    RESCUE,
    RESIZE,
    RESUME,
    REVERT,
    SNAPSHOT,
    SOFT_DELETE,
    SPAWN,
    SUSPEND,
    TAKE_SNAPSHOT,
    UNRESCUE,
)
from tests.crash.dying_daemon import BEFORE, cancelling
from tests.crash.lives import Call, Lives, changes, places
from tests.crash.verdict import end_machines, hold_though, hold_through
from tests.daemon import DaemonProcess

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(600)]
CASES = (SPAWN, DESTROY)
# Verbs that remake a guest; the fake dies around every write of theirs.
REMAKING = (
    *(RESCUE, UNRESCUE, SNAPSHOT, REBUILD, RESIZE, FINISH, CONFIRM, REVERT),
    *(SOFT_DELETE, SUSPEND, RESUME),
)


@pytest.fixture(scope="module")
def lives(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[Lives]:
    """Daemons over embedded QEMU."""
    folder = short_folder()
    yield Lives(folder, backend="libvirt", place_images=guest_images)
    end_machines(folder)


def test_death_around_every_write_leaves_a_guest_or_nothing(lives: Lives) -> None:
    writes = lives.count(CASES)
    calls = [[Call.of(case, *place) for place in places(writes[str(case)])] for case in CASES]
    hold_through(lives, calls, writes)


def test_death_in_the_midst_of_remaking_a_guest_leaves_it_as_it_should_be(lives: Lives) -> None:
    """All at once: in the last step of each verb, when the host is changed already."""
    writes = lives.count(REMAKING)
    calls = [
        [Call.of(case, *place)]
        for case in REMAKING
        for place in [p for p in places(writes[str(case)]) if p[1] == BEFORE][-1:]
    ]
    hold_through(lives, calls, writes)


def test_cancel_in_any_step_of_remaking_a_guest_leaves_it_done_or_undone(lives: Lives) -> None:
    writes = lives.count(REMAKING)
    calls = [[Call.of(case, *place) for place in changes(writes[str(case)])] for case in REMAKING]
    hold_though(lives, cancelling, calls, failure="CANCELLED")


def test_death_after_a_volume_was_cut_gives_it_back_whole(lives: Lives) -> None:
    """Also of a machine that is off, whose configuration has been read from disk since."""
    off = replace(
        TAKE_SNAPSHOT, before=[*IS_OFF, ATTACH_VOLUME], name="snapshot of one that is off"
    )
    cases = (TAKE_SNAPSHOT, off)
    writes = lives.count(cases)
    calls = [[Call.of(case, writes[str(case)].index("commit") + 1, BEFORE)] for case in cases]
    hold_through(lives, calls, writes)
