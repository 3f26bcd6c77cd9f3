"""The daemon dies around every step of every verb that changes something on real QEMU.

Before the step has its effect, and after it. What all verbs have in common, their acceptance
and their end, is tried on the fake, with every write of theirs (tests/crash).
"""

import traceback
from pathlib import Path

from virtrpc.v1 import host_pb2

from backends.contract import GuestAgent
from tests.crash.caller import TIMEOUT_S, VERBS
from tests.crash.cases import CASES, Case
from tests.crash.lives import Call, Lives, steps
from tests.crash.verdict import hold_through
from tests.images import place_guest_images


def run(folder: Path) -> list[str]:
    """What was wrong first."""
    lives = Lives(
        folder,
        backend="libvirt",
        place_images=lambda daemon: place_guest_images(daemon.image_dir),
    )
    cases = _cases(lives)
    writes = lives.count(cases)
    every = [[Call.of(case, *place) for place in steps(writes[str(case)])] for case in cases]
    calls = [its for its in every if its]  # some change nothing that is not the caller's
    print(f"{len(calls):8} verbs\n{sum(map(len, calls)):8} deaths", flush=True)
    try:
        hold_through(lives, calls, writes)
    except AssertionError as error:
        return [f"after a death: {error}", *traceback.format_exception(error)]
    return []


def _cases(lives: Lives) -> list[Case]:
    """What libvirt can do here, but for the guest agent, which a guest that boots has not yet."""
    with lives.life() as daemon, daemon.connect() as connection:
        request = host_pb2.GetCapabilitiesRequest()
        found = connection.hosts.GetCapabilities(request, timeout=TIMEOUT_S).capabilities
    supported = {capability.name for capability in found if capability.supported}
    without_agent = supported - GuestAgent.__abstractmethods__

    def can(case: Case) -> bool:
        return VERBS[case.verb].capability in without_agent and all(map(can, case.before))

    return [case for case in CASES if can(case)]
