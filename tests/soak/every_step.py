"""In every step of every verb that changes something on real QEMU: the daemon dies, it is told to
cancel, or it loses its hypervisor for a moment.

It dies before the step has its effect, and after it. What all verbs have in common, their
acceptance and their end, is tried on the fake, with every write of theirs (tests/crash).
"""

import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from virtrpc.v1 import host_pb2

from backends.contract import GuestAgent
from tests.crash.caller import TIMEOUT_S, VERBS
from tests.crash.cases import CASES, Case
from tests.crash.dying_daemon import cancelling, losing
from tests.crash.lives import Call, Lives, Place, changes, steps
from tests.crash.verdict import Plan, hold_though, hold_through
from tests.images import place_guest_images


def deaths(folder: Path) -> list[str]:
    """What was wrong first."""
    lives = _lives(folder)
    cases = _cases(lives)
    writes = lives.count(cases)
    calls = _calls(cases, lambda case: steps(writes[str(case)]))
    return _first_wrong("death", calls, lambda: hold_through(lives, calls, writes))


def cancels(folder: Path) -> list[str]:
    """What was wrong first."""
    never = {verb.name for verb in VERBS.values() if verb.options.preempts}
    return _though(folder, "cancel", cancelling, failure="CANCELLED", but=never)


def losses(folder: Path) -> list[str]:
    """What was wrong first."""
    return _though(folder, "loss", losing, failure="HYPERVISOR_UNREACHABLE")


def _though(
    folder: Path, what: str, plan: Plan, *, failure: str, but: Collection[str] = ()
) -> list[str]:
    lives = _lives(folder)
    cases = [case for case in _cases(lives) if case.verb not in but]
    writes = lives.count(cases)
    calls = _calls(cases, lambda case: changes(writes[str(case)]))
    return _first_wrong(what, calls, lambda: hold_though(lives, plan, calls, failure=failure))


def _lives(folder: Path) -> Lives:
    return Lives(
        folder,
        backend="libvirt",
        place_images=lambda daemon: place_guest_images(daemon.image_dir),
    )


def _calls(cases: Sequence[Case], places: Callable[[Case], Sequence[Place]]) -> list[list[Call]]:
    """Of each case those in all its places; some change nothing that is not the caller's."""
    every = [[Call.of(case, *place) for place in places(case)] for case in cases]
    return [its for its in every if its]


def _first_wrong(what: str, calls: Sequence[Sequence[Call]], hold: Callable[[], None]) -> list[str]:
    print(f"{len(calls):8} verbs\n{sum(map(len, calls)):8} times: {what}", flush=True)
    try:
        hold()
    except AssertionError as error:
        return [f"after a {what}: {error}", *traceback.format_exception(error)]
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
