"""Running, paused, off, on libvirt."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import libvirt
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Power
from backends.durations import seconds
from backends.libvirt.definition import power_on
from backends.libvirt.domains import Domains, is_active
from backends.libvirt.lifecycle import force_off
from backends.power_states import power_blockers, start_blockers
from backends.work import Work

_RUNNING = PowerState.POWER_STATE_RUNNING
_PAUSED = PowerState.POWER_STATE_PAUSED
_SUSPENDED = PowerState.POWER_STATE_SUSPENDED
_OFF = frozenset({PowerState.POWER_STATE_SHUTDOWN, PowerState.POWER_STATE_CRASHED})
_DEFAULT_TIMEOUT_S = 60.0
_DEFAULT_RETRY_S = 10.0
_DEFAULT_POLL_S = 120.0
_LOOK_S = 0.2


class LibvirtPower(Power):
    """Power states of instances."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains
        self._rebooting: dict[str, float] = {}
        self._impatient: set[str] = set()
        self._rebooting_lock = threading.Lock()
        self.undo = {"power_on": lambda instance_id: power_on(domains, instance_id)}

    def power_on_instance(
        self, request: pb.PowerOnInstanceRequest, work: Work
    ) -> pb.PowerOnInstanceResponse:
        """See Power."""
        domain, instance = self._domains.managed(request.instance_id)
        allowed = power_blockers(instance, _RUNNING, _SUSPENDED, *_OFF)
        work.ready([*allowed, *start_blockers(instance)])
        if instance.power_state != _RUNNING:
            work.step("start")
            self._start(domain)
            self._domains.want(domain, _RUNNING)
        return pb.PowerOnInstanceResponse(instance=self._domains.tell(domain))

    def power_off_instance(
        self, request: pb.PowerOffInstanceRequest, work: Work
    ) -> pb.PowerOffInstanceResponse:
        """See Power."""
        domain, instance = self._domains.managed(request.instance_id)
        work.ready()
        forced = False
        if instance.power_state == _SUSPENDED:
            work.step("discard")
            self._call(domain, domain.managedSaveRemove)
        elif instance.power_state not in _OFF:
            work.step("stop")
            # A paused guest cannot react.
            timeout_s = seconds(request, "timeout", _DEFAULT_TIMEOUT_S)
            may_react = instance.power_state == _RUNNING and timeout_s > 0
            retry_s = seconds(request, "retry_interval", _DEFAULT_RETRY_S) or _DEFAULT_RETRY_S
            forced = not (
                may_react
                and shut_down(
                    self._domains, domain, timeout_s=timeout_s, retry_s=retry_s, work=work
                )
            )
            if forced:
                force_off(self._domains, request.instance_id)
        self._domains.want(domain, PowerState.POWER_STATE_SHUTDOWN)
        return pb.PowerOffInstanceResponse(forced=forced, instance=self._domains.tell(domain))

    def reboot_instance(
        self, request: pb.RebootInstanceRequest, work: Work
    ) -> pb.RebootInstanceResponse:
        """See Power."""
        domain, instance = self._domains.managed(request.instance_id)
        work.ready(start_blockers(instance))
        work.step("reboot")
        soft = request.type == pb.REBOOT_TYPE_SOFT and instance.power_state == _RUNNING
        timeout_s = seconds(request, "timeout", _DEFAULT_TIMEOUT_S)
        forced = soft and not self._guest_reboots(domain, timeout_s, work)
        if forced or not soft:
            force_off(self._domains, request.instance_id)
            self._discard_saved(domain)
            self._start(domain)
        self._domains.want(domain, _RUNNING)
        return pb.RebootInstanceResponse(forced=forced, instance=self._domains.tell(domain))

    def poll_rebooting_instances(
        self, request: pb.PollRebootingInstancesRequest, work: Work
    ) -> pb.PollRebootingInstancesResponse:
        """See Power. Their own reboot then goes on with a reset."""
        timeout_s = seconds(request, "timeout", _DEFAULT_POLL_S)
        now = time.monotonic()
        with self._rebooting_lock:
            stuck = [i for i, since in self._rebooting.items() if now - since >= timeout_s]
        work.ready()
        work.step("force")
        with self._rebooting_lock:
            self._impatient.update(stuck)
        return pb.PollRebootingInstancesResponse(instance_ids=sorted(stuck))

    def trigger_crash_dump(
        self, request: pb.TriggerCrashDumpRequest, work: Work
    ) -> pb.TriggerCrashDumpResponse:
        """See Power."""
        domain, instance = self._domains.managed(request.instance_id)
        work.ready(power_blockers(instance, _RUNNING))
        work.step("nmi")
        self._call(domain, domain.injectNMI)
        return pb.TriggerCrashDumpResponse()

    def pause_instance(
        self, request: pb.PauseInstanceRequest, work: Work
    ) -> pb.PauseInstanceResponse:
        """See Power."""
        domain, instance = self._domains.managed(request.instance_id)
        work.ready(power_blockers(instance, _RUNNING, _PAUSED))
        if instance.power_state == _RUNNING:
            work.step("pause")
            self._call(domain, domain.suspend)
            self._domains.want(domain, _PAUSED)
        return pb.PauseInstanceResponse(instance=self._domains.tell(domain))

    def unpause_instance(
        self, request: pb.UnpauseInstanceRequest, work: Work
    ) -> pb.UnpauseInstanceResponse:
        """See Power."""
        domain, instance = self._domains.managed(request.instance_id)
        work.ready(power_blockers(instance, _RUNNING, _PAUSED))
        if instance.power_state == _PAUSED:
            work.step("unpause")
            self._call(domain, domain.resume)
            self._domains.want(domain, _RUNNING)
        return pb.UnpauseInstanceResponse(instance=self._domains.tell(domain))

    def _start(self, domain: libvirt.virDomain) -> None:
        self._call(domain, lambda: self._domains.start(domain))

    def _call(self, domain: libvirt.virDomain, call: Callable[[], object]) -> None:
        try:
            call()
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, domain.UUIDString()) from error

    def _guest_reboots(self, domain: libvirt.virDomain, timeout_s: float, work: Work) -> bool:
        """Asks the guest to restart; False when it does not in time, or a poll lost patience."""
        instance_id = domain.UUIDString()
        rebooted = self._domains.reboot_of(instance_id)
        with self._rebooting_of(instance_id):
            button = libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN
            ask(self._domains, domain, lambda: domain.reboot(button))
            end = time.monotonic() + timeout_s
            while time.monotonic() < end and not rebooted.is_set():
                if instance_id in self._impatient or not is_active(domain):
                    break
                work.wait(_LOOK_S)
        return rebooted.is_set()

    @contextmanager
    def _rebooting_of(self, instance_id: str) -> Iterator[None]:
        with self._rebooting_lock:
            self._rebooting[instance_id] = time.monotonic()
            self._impatient.discard(instance_id)
        try:
            yield
        finally:
            with self._rebooting_lock:
                self._rebooting.pop(instance_id, None)

    def _discard_saved(self, domain: libvirt.virDomain) -> None:
        """A restart begins from the disks, not from memory that was saved."""
        self._call(domain, lambda: domain.hasManagedSaveImage() and domain.managedSaveRemove())


def ask(domains: Domains, domain: libvirt.virDomain, call: Callable[[], object]) -> None:
    """A request to the guest; that it has gone off meanwhile is no error."""
    try:
        call()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise domains.failed(error, domain.UUIDString()) from error


def shut_down(
    domains: Domains, domain: libvirt.virDomain, *, timeout_s: float, retry_s: float, work: Work
) -> bool:
    """Asks the guest, again and again, to switch off; False when it does not in time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        ask(domains, domain, domain.shutdown)
        ask_again = min(end, time.monotonic() + retry_s)
        while time.monotonic() < ask_again:
            if not is_active(domain):
                return True
            work.wait(_LOOK_S)
    return not is_active(domain)
