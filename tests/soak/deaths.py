"""The daemon dies around every write of every verb that changes something on real QEMU.

Beside every change only spawn and destroy are tried so (tests/crash), and all verbs on the fake.
"""

from pathlib import Path

from backends.contract import GuestAgent
from service.verbs import snake_case
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
    # A guest that has only begun to boot has no agent yet, and the rest needs none.
    cases = [case for case in CASES if snake_case(case.verb) not in GuestAgent.__abstractmethods__]
    writes = lives.count(cases)
    calls = [[Call.of(case, *place) for place in places(writes[str(case)])] for case in cases]
    print(f"{len(cases):8} verbs\n{sum(map(len, calls)):8} deaths")
    try:
        hold_through(lives, calls, writes)
    except AssertionError as error:
        return [f"after a death: {error}"]
    return []
