"""What a death of the daemon cut off in machines that run, made good before libvirt is opened.

libvirt does a thing in QEMU and then writes it down in its status file. Killed in between, it
knows at its next start another machine than there is. The embedded driver begins with the
daemon, which so can be there before it; a libvirtd that is killed has the same faults.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import structlog

from backends.libvirt.lost_attachments import undo_attachments
from backends.libvirt.lost_chains import note_chains
from backends.libvirt.lost_removals import put_stand_ins
from backends.libvirt.monitor import Monitor
from backends.libvirt.status_files import Noted, read_status

_TIMEOUT_S, _AT_ONCE = 1.0, 16
log = structlog.get_logger()


def make_good(root: Path) -> Mapping[str, int]:
    """Makes the machines of a root folder what libvirt has noted, or will find to be so.

    Before that driver is opened: a monitor takes one client. Each machine is asked for a second
    at most, and for six where something was cut off, several at once; what fails is logged.

    Gives the processes, by instance id, that may have devices which libvirt does not know.
    """
    read = [read_status(path) for path in sorted((root / "run/qemu").glob("*.xml"))]
    machines = [noted for noted in read if noted is not None]
    if not machines:
        return {}
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="cut-off") as pool:
        sure = list(pool.map(_is_made_good, machines))
    return {
        noted.instance_id: noted.pid
        for noted, is_sure in zip(machines, sure, strict=True)
        if not is_sure
    }


def _is_made_good(noted: Noted) -> bool:
    try:
        with closing(Monitor(noted.monitor, timeout_s=_TIMEOUT_S)) as monitor:
            if note_chains(monitor, noted):
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
