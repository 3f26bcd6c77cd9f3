"""After the host has restarted: instances come back as they should be (`--resume-instances`).

    same boot as last time ─▶ nothing: who is off now was switched off, or has switched itself off
    another boot ─▶ ResumeInstanceOnHostBoot of each that is off ─▶ the boot is remembered

One after the other, by operations like any other. A daemon that dies meanwhile begins anew.
"""

import asyncio
from pathlib import Path

import structlog
from virtrpc.v1 import instance_pb2
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import PowerState

from backends.durable_files import write_durably
from backends.power_states import start_blockers
from service.errands import Errand
from service.truth import Truth

CALLER = "daemon:host-boot"
_THIS_BOOT = Path("/proc/sys/kernel/random/boot_id")
_OFF = (PowerState.POWER_STATE_SHUTDOWN, PowerState.POWER_STATE_CRASHED)
log = structlog.get_logger()


class HostBoots:
    """Notices that the host has restarted since the last daemon ran."""

    def __init__(self, record: Path, *, resume: bool) -> None:
        """`record` is the file with the last boot's id."""
        self._record = record
        self._resume = resume

    async def resume_after(self, truth: Truth, resume: Errand) -> None:
        """Resumes all that should run, where the host has restarted; ends by itself."""
        boot, before = await asyncio.to_thread(self._boots)
        if self._resume and before != boot:
            log.info("the host has restarted: instances are resumed")
            for instance in [one for one in truth.all() if _may_be_meant_to_run(one)]:
                instance_id = instance.instance_id
                await resume.run(
                    instance_pb2.ResumeInstanceOnHostBootRequest(instance_id=instance_id)
                )
        await asyncio.to_thread(write_durably, self._record, boot, mode=0o600)

    def _boots(self) -> tuple[str, str]:
        """This boot, and the one that a daemon last ran in: this too, where there is no record."""
        boot = _THIS_BOOT.read_text(encoding="ascii")
        return boot, self._record.read_text(encoding="ascii") if self._record.exists() else boot


def _may_be_meant_to_run(instance: Instance) -> bool:
    return instance.managed and instance.power_state in _OFF and not start_blockers(instance)
