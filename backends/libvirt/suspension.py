"""Memory to disk and back, by libvirt's managed save."""

import libvirt
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Suspension
from backends.libvirt.domains import Domains, is_active
from backends.power_states import power_blockers, save_blockers, start_blockers
from backends.work import Undo, Work

_RUNNING = PowerState.POWER_STATE_RUNNING
_SUSPENDED = PowerState.POWER_STATE_SUSPENDED


class LibvirtSuspension(Suspension):
    """Suspend and resume."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains
        self.undo = {"restore": self._undo_save, "restore_running": self._undo_save_running}

    def suspend_instance(self, request: pb.SuspendInstanceRequest, work: Work) -> pb.Instance:
        """See Suspension."""
        domain, instance = self._domains.managed(request.instance_id)
        work.ready(save_blockers(instance))
        if instance.power_state != _SUSPENDED:
            work.phase("save", percent=5)
            undo = "restore_running" if instance.power_state == _RUNNING else "restore"
            work.step("save", Undo(undo, {"instance_id": request.instance_id}))
            self._save(domain)
            work.commit()
            self._domains.want(domain, _SUSPENDED)
        return self._domains.tell(domain)

    def resume_instance(self, request: pb.ResumeInstanceRequest, work: Work) -> pb.Instance:
        """See Suspension."""
        domain, instance = self._domains.managed(request.instance_id)
        work.ready([*power_blockers(instance, _RUNNING, _SUSPENDED), *start_blockers(instance)])
        if instance.power_state == _SUSPENDED:
            work.phase("restore", percent=5)
            # Without an undo: until it runs, libvirt keeps the saved memory. Once it may run it
            # is not saved anew: a daemon that died looks whether it does, and else begins again.
            work.step("restore")
            work.commit()
            self._restore(domain)
            self._domains.want(domain, _RUNNING)
        return self._domains.tell(domain)

    def _undo_save(self, instance_id: str) -> None:
        """Brings an instance back whose save was interrupted."""
        domain = self._domains.find(instance_id)
        if domain is not None and domain.hasManagedSaveImage() and not domain.isActive():
            self._restore(domain)
        if domain is not None:
            self._domains.tell(domain)

    def _undo_save_running(self, instance_id: str) -> None:
        """The same for one that ran: a save that was cut off leaves its guest paused."""
        self._undo_save(instance_id)
        domain = self._domains.find(instance_id)
        if domain is not None and is_active(domain):
            self._run_on(domain)
            self._domains.tell(domain)

    def _run_on(self, domain: libvirt.virDomain) -> None:
        try:
            domain.resume()
        except libvirt.libvirtError as error:
            runs = error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID
            if not runs:
                raise self._domains.failed(error, domain.UUIDString()) from error

    def _save(self, domain: libvirt.virDomain) -> None:
        try:
            # Whatever starts it again starts it: paused it would be neither on nor suspended.
            domain.managedSave(libvirt.VIR_DOMAIN_SAVE_RUNNING)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, domain.UUIDString()) from error

    def _restore(self, domain: libvirt.virDomain) -> None:
        try:
            self._domains.start(domain)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, domain.UUIDString()) from error
