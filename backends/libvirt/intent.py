"""What is wanted of an instance; kept in its domain's metadata."""

import libvirt
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Intent
from backends.intent import changed_metadata, reclaim_time, resume_blockers
from backends.libvirt.blueprint import unwritable
from backends.libvirt.domains import Domains
from backends.libvirt.lifecycle import force_off
from backends.power_states import bootable_blockers
from backends.work import Work

_RUNNING = PowerState.POWER_STATE_RUNNING
_PAUSED = PowerState.POWER_STATE_PAUSED
_SHUTDOWN = PowerState.POWER_STATE_SHUTDOWN
_ON = (_RUNNING, _PAUSED, PowerState.POWER_STATE_CRASHED)


class LibvirtIntent(Intent):
    """Verbs that change what an instance should be, rather than what it is."""

    def __init__(self, domains: Domains, *, reclaim_after_s: float) -> None:
        self._domains = domains
        self._reclaim_after_s = reclaim_after_s

    def set_instance_bootable(
        self, request: pb.SetInstanceBootableRequest, work: Work
    ) -> pb.SetInstanceBootableResponse:
        """See Intent."""
        domain, instance = self._domains.managed(request.instance_id)
        work.ready()
        if instance.bootable != request.bootable:
            work.step("metadata")
            self._domains.amend_own(domain, lambda own: setattr(own, "bootable", request.bootable))
        return pb.SetInstanceBootableResponse(instance=self._domains.tell(domain))

    def update_instance_metadata(
        self, request: pb.UpdateInstanceMetadataRequest, work: Work
    ) -> pb.UpdateInstanceMetadataResponse:
        """See Intent."""
        domain, _ = self._domains.managed(request.instance_id)
        own = self._domains.own(domain)
        wanted = changed_metadata(own.metadata, request)
        work.ready(unwritable({f'set["{k}"]': k + v for k, v in wanted.items()}))
        if wanted != own.metadata:
            work.step("metadata")
            self._domains.amend_own(domain, lambda own: setattr(own, "metadata", wanted))
        return pb.UpdateInstanceMetadataResponse(metadata=self._domains.tell(domain).metadata)

    def soft_delete_instance(
        self, request: pb.SoftDeleteInstanceRequest, work: Work
    ) -> pb.SoftDeleteInstanceResponse:
        """See Intent."""
        domain, instance = self._domains.managed(request.instance_id)
        work.ready()
        if not instance.HasField("reclaim_at"):
            work.step("hide")
            work.commit()  # nobody is to find it hidden and running
            own = self._domains.own(domain)
            own.reclaim_at = reclaim_time(request, self._reclaim_after_s)
            own.wanted = _SHUTDOWN
            self._domains.save_own(domain, own)
        if instance.power_state in _ON:  # also where a call that died had only hidden it
            work.step("stop")
            force_off(self._domains, request.instance_id)
        return pb.SoftDeleteInstanceResponse(instance=self._domains.tell(domain))

    def restore_instance(
        self, request: pb.RestoreInstanceRequest, work: Work
    ) -> pb.RestoreInstanceResponse:
        """See Intent."""
        domain, instance = self._domains.managed(request.instance_id)
        work.ready(bootable_blockers(instance))
        if instance.HasField("reclaim_at"):
            work.step("start")
            self._bring_to(domain, instance, _RUNNING)
            own = self._domains.own(domain)
            own.reclaim_at, own.wanted = None, _RUNNING
            self._domains.save_own(domain, own)
        return pb.RestoreInstanceResponse(instance=self._domains.tell(domain))

    def resume_instance_on_host_boot(
        self, request: pb.ResumeInstanceOnHostBootRequest, work: Work
    ) -> pb.ResumeInstanceOnHostBootResponse:
        """See Intent."""
        domain, instance = self._domains.managed(request.instance_id)
        wanted = request.power_state or self._domains.own(domain).wanted
        work.ready(resume_blockers(instance, wanted))
        if wanted in (_RUNNING, _PAUSED) and instance.power_state != wanted:
            work.step("start")
            self._bring_to(domain, instance, wanted)
            self._domains.want(domain, wanted)
        return pb.ResumeInstanceOnHostBootResponse(instance=self._domains.tell(domain))

    def _bring_to(
        self, domain: libvirt.virDomain, instance: pb.Instance, wanted: "PowerState.ValueType"
    ) -> None:
        """Starts a domain, or lets it run, or pauses it."""
        paused = wanted == _PAUSED
        try:
            if not domain.isActive():
                self._domains.start(domain, libvirt.VIR_DOMAIN_START_PAUSED if paused else 0)
            elif paused and instance.power_state == _RUNNING:
                domain.suspend()
            elif not paused and instance.power_state == _PAUSED:
                domain.resume()
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, domain.UUIDString()) from error
