"""Jobs that QEMU does on a disk while its guest runs: mirror, commit, pull.

none ──begin──▶ running ──all copied──▶ ready ──pivot──▶ none   (mirror, commit of the active)
                   │                      │
                   ╰──────── abort ───────╯──▶ none, the disk as it was
"""

import time
from collections.abc import Callable

import libvirt

from backends.errors import HypervisorError
from backends.libvirt.domains import Domains
from backends.libvirt.holds import held
from backends.work import Work

_LOOK_S, _NOTED_S = 0.2, 10.0
MIRROR = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
"""Of a copy to storage that is there."""
_PIVOT = libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
_FIRST_PERCENT, _LAST_PERCENT = 5, 90


class BlockJob:
    """The job on one disk of a running domain, if there is one."""

    def __init__(self, domains: Domains, domain: libvirt.virDomain, device_name: str) -> None:
        self._domains = domains
        self._domain = domain
        self._device_name = device_name
        self.copied_bytes = 0
        """As far as was last seen."""

    def is_there(self) -> bool:
        """Whether a job is at work, or ready."""
        return bool(self._info())

    def begin(self, call: Callable[[], object]) -> None:
        """Begins one, by a call that returns at once."""
        try:
            call()
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, self._domain.UUIDString()) from error

    def until_ready(
        self, work: Work | None, phase: str, *, from_percent: int = _FIRST_PERCENT
    ) -> bool:
        """True when all is copied and the disk can be turned; False when it ended by itself.

        Without `work` nobody is told and nobody can cancel it.
        """
        while info := self._info():
            copied, whole = info["cur"], info["end"]
            self.copied_bytes = max(self.copied_bytes, copied)
            # libvirt tells one byte less than all until QEMU is ready.
            if whole and copied == whole:
                return True
            if work is None:
                time.sleep(_LOOK_S)  # an undo, which may not be cancelled
                continue
            share = copied / whole if whole else 0
            percent = from_percent + int((_LAST_PERCENT - from_percent) * share)
            work.phase(phase, percent=percent, message=f"{copied} of {whole} bytes")
            work.wait(_LOOK_S)
        return False

    def pivot(self) -> None:
        """Turns the disk to what was copied to; returns when it has."""
        try:
            with held(self._domain, self._device_name):
                self._turn()
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, self._domain.UUIDString()) from error

    def _turn(self) -> None:
        """QEMU says that a job is ready a moment before libvirt takes note of it."""
        end = time.monotonic() + _NOTED_S
        while True:
            try:
                self._domain.blockJobAbort(self._device_name, _PIVOT)
            except libvirt.libvirtError as error:
                unnoted = error.get_error_code() == libvirt.VIR_ERR_BLOCK_COPY_ACTIVE
                if not unnoted or time.monotonic() > end:
                    raise
            else:
                return
            time.sleep(_LOOK_S / 4)

    def abort(self) -> None:
        """Ends it, the disk as it was; nothing where there is none."""
        instance_id = self._domain.UUIDString()
        try:
            info = self._info() if self._domain.isActive() else {}
            if info.get("type") == libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_PULL:
                with self._domains.pulls.under_way(instance_id):
                    self._domain.blockJobAbort(self._device_name, 0)
            elif info:
                self._domain.blockJobAbort(self._device_name, 0)
        except libvirt.libvirtError as error:
            ended = (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_INVALID_ARG)
            if error.get_error_code() not in ended:
                raise self._domains.failed(error, instance_id) from error

    def _info(self) -> dict[str, int]:
        try:
            info: dict[str, int] = self._domain.blockJobInfo(self._device_name, 0)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, self._domain.UUIDString()) from error

        if info is None:
            raise HypervisorError(f"the job on {self._device_name} cannot be looked at")
        return info
