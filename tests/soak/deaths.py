"""The daemon dies around every write of every verb that changes something on real QEMU.

Beside every change only spawn and destroy are tried so (tests/crash), and all verbs on the fake.
"""

from pathlib import Path

from tests.crash.cases import CASES
from tests.crash.lives import Call, Lives, places
from tests.crash.verdict import hold_through
from tests.images import place_guest_images


def run(folder: Path) -> list[str]:
    """What was wrong first."""
    lives = Lives(
        folder,
        backend="libvirt",
        place_images=lambda daemon: place_guest_images(daemon.image_dir),
    )
    writes = lives.count(CASES)
    calls = [[Call.of(case, *place) for place in places(writes[str(case)])] for case in CASES]
    print(f"{len(CASES):8} verbs\n{sum(map(len, calls)):8} deaths")
    try:
        hold_through(lives, calls, writes)
    except AssertionError as error:
        return [f"after a death: {error}"]
    return []
