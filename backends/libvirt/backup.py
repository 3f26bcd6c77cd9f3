"""A disk of a running domain copied as it is at one moment, while the guest goes on.

QEMU copies what the guest is about to overwrite first, so the cut is where the copy
begins: a guest has to be frozen for an instant only, however long it takes.

Source: libvirt's "virDomainBackupBegin", push mode.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import libvirt
import structlog

from backends.errors import ContractError, HypervisorError, TimedOutError, WrongStateError
from backends.images.qemu_img import says_full
from backends.images.refusals import no_room
from backends.libvirt.domains import Domains
from backends.libvirt.xml.backup import BackupDisk, DomainBackup
from backends.libvirt.xml.element import parse, to_text
from backends.work import Work

_LOOK_S = 0.2
_ABORT_S = 30.0
_UNDER_WAY = (
    libvirt.VIR_DOMAIN_JOB_BOUNDED,
    libvirt.VIR_DOMAIN_JOB_UNBOUNDED,
)
log = structlog.get_logger()


class Backups:
    """Copies of disks of running domains."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def begin(self, domain: libvirt.virDomain, device: str, target: Path, *, to: str) -> None:
        """The cut: what the guest writes from here on is not in the copy, a new file."""
        disk = BackupDisk(name=device, type="file", backup="yes", format=to, target=str(target))
        backup = DomainBackup(mode="push", disks=[disk])
        try:
            domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)  # forgets an earlier job
            domain.backupBegin(to_text(backup.to_xml()), None)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, domain.UUIDString()) from error

    def wait(self, domain: libvirt.virDomain, work: Work, tell: Callable[[int, int], None]) -> None:
        """Waits for the copy's end; `tell` is told bytes done and bytes in all, and may raise."""
        while (stats := self._stats(domain)).get("type") in _UNDER_WAY:
            tell(stats.get("disk_processed", 0), stats.get("disk_total", 0))
            work.wait(_LOOK_S)
        self._conclude(domain)

    def abort(self, instance_id: str, folder: Path) -> None:
        """Ends a copy into a folder, if there is one under way; raises TimedOutError."""
        domain = self._domains.find(instance_id)
        end = time.monotonic() + _ABORT_S
        while domain is not None and self._target(domain).parent == folder:
            if time.monotonic() > end:
                raise TimedOutError(f"a copy did not end in {_ABORT_S:.0f} s")
            self._ask_to_abort(domain)
            time.sleep(_LOOK_S)  # an undo has no Work to wait with, and may not be cancelled

    def _stats(self, domain: libvirt.virDomain) -> Mapping[str, Any]:
        try:
            stats: Mapping[str, Any] = domain.jobStats() if domain.isActive() else {}
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID:
                return {}  # it went off between the two calls
            raise self._domains.failed(error, domain.UUIDString()) from error
        return stats

    def _conclude(self, domain: libvirt.virDomain) -> None:
        """Raises what the copy has failed with, if it has."""
        try:
            stats = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
            active = domain.isActive()
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, domain.UUIDString()) from error
        if stats.get("type") != libvirt.VIR_DOMAIN_JOB_COMPLETED:
            raise _failure(str(stats.get(libvirt.VIR_DOMAIN_JOB_ERRMSG, "")), active=bool(active))

    def _target(self, domain: libvirt.virDomain) -> Path:
        """The file that a copy under way is written to; the empty path: there is none."""
        try:
            backup = DomainBackup.from_xml(parse(domain.backupGetXMLDesc()))
        except libvirt.libvirtError as error:
            ended = (libvirt.VIR_ERR_NO_DOMAIN_BACKUP, libvirt.VIR_ERR_OPERATION_INVALID)
            if error.get_error_code() in (*ended, libvirt.VIR_ERR_NO_DOMAIN):
                return Path()
            raise self._domains.failed(error, domain.UUIDString()) from error
        return Path(next((disk.target for disk in backup.disks if disk.target), ""))

    def _ask_to_abort(self, domain: libvirt.virDomain) -> None:
        try:
            domain.abortJob()
        except libvirt.libvirtError as error:
            # It may have ended meanwhile; the next look tells.
            log.debug("job not aborted", reason=str(error))


def _failure(message: str, *, active: bool) -> ContractError:
    if not active:
        return WrongStateError("the machine went off while its disk was copied")
    if says_full(message.encode()):
        return no_room()
    return HypervisorError(f"the disk could not be copied: {message or 'no message'}")
