"""What a death of the daemon cut off in machines that run, made good before libvirt is opened.

libvirt does a thing in QEMU and then writes it down in its status file. Killed in between, it
knows at its next start another machine than there is. The embedded driver begins with the
daemon, which so can be there before it; a libvirtd that is killed has the same faults.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog

from backends.libvirt.lost_attachments import undo_attachments
from backends.libvirt.lost_chains import make_readable, note_chains
from backends.libvirt.lost_removals import put_stand_ins
from backends.libvirt.monitor import Monitor
from backends.libvirt.status_files import Noted, read_status

_TIMEOUT_S, _WITH_JOB_S, _AT_ONCE = 1.0, 5.0, 16
log = structlog.get_logger()


@dataclass
class Found:
    """What libvirt will not know of by itself, or not all of it."""

    doubtful: dict[str, int] = field(default_factory=dict)
    """Processes, by instance id, that may have devices which libvirt does not know."""
    overlaid: dict[str, Sequence[str]] = field(default_factory=dict)
    """Disks, by instance id, with an overlay that their configuration does not have."""


def make_good(root: Path) -> Found:
    """Makes the machines of a root folder what libvirt has noted, or will find to be so.

    Before that driver is opened: a monitor takes one client. Each machine is asked for a second
    at most, for five where it had a job on a disk, and for five more where something was cut off;
    several at once. What fails is logged.
    """
    found = Found()
    read = [read_status(path) for path in sorted((root / "run/qemu").glob("*.xml"))]
    machines = [noted for noted in read if noted is not None]
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="cut-off") as pool:
        sure = pool.map(partial(_is_made_good, found), machines)
        for noted, is_sure in zip(machines, sure, strict=True):
            if not is_sure:
                found.doubtful[noted.instance_id] = noted.pid
    return found


def _is_made_good(found: Found, noted: Noted) -> bool:
    try:
        had_job = noted.status.find("blockjobs/blockjob") is not None
        if make_readable(noted):
            noted = read_status(noted.path) or noted
        timeout_s = _WITH_JOB_S if had_job else _TIMEOUT_S
        with closing(Monitor(noted.monitor, timeout_s=timeout_s)) as monitor:
            overlaid = note_chains(monitor, noted)
            if overlaid is not None:
                found.overlaid[noted.instance_id] = overlaid
                noted = read_status(noted.path) or noted
            listed = monitor.execute("qom-list", path="/machine/peripheral")
            there = {device["name"] for device in listed}
            put_stand_ins(monitor, noted, there)
            return undo_attachments(monitor, noted, there)
    except (ConnectionRefusedError, FileNotFoundError):
        return True  # nothing runs
    except OSError as error:
        log.warning("machine not asked for its devices", name=noted.name, reason=str(error))
    except Exception:
        # Whatever one machine says, the daemon starts.
        log.exception("a machine's answer not understood", name=noted.name)
    return False
