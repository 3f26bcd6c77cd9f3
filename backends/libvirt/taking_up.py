"""A libvirt that has begun anew takes up the machines that run, beside what it is asked already.

Until then it tells states that it had noted, which are older than what QEMU did last: who undoes
by them would leave a guest paused, or take it for running.
"""

import time
from threading import Thread

import libvirt
import structlog

from backends.errors import UnreachableError
from backends.libvirt.asked_stats import ACTIVE, ANSWERED
from backends.libvirt.handles import Handles

_PATIENCE_S, _LOOK_S = 3.0, 0.02
log = structlog.get_logger()


def wait_for_machines(handles: Handles) -> None:
    """Returns when all running machines are taken up; or soon, where one's QEMU hangs."""
    waiting = Thread(target=_wait, args=(handles,), name="taking-up", daemon=True)
    waiting.start()
    waiting.join(_PATIENCE_S)
    if waiting.is_alive():
        log.warning("a machine is not taken up by libvirt yet, and not waited for")


def _wait(handles: Handles) -> None:
    try:
        end = time.monotonic() + _PATIENCE_S
        while _some_are_not(handles.own) and time.monotonic() < end:
            time.sleep(_LOOK_S)  # libvirt does not tell
    except (libvirt.libvirtError, UnreachableError) as error:
        log.debug("machines not waited for", reason=str(error))


def _some_are_not(connection: libvirt.virConnect) -> bool:
    rows = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_BALLOON, ACTIVE)
    return any(ANSWERED not in stats for _, stats in rows)
