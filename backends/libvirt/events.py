"""libvirt's callbacks → events. They only convert and hand over: libvirt waits for them."""

from collections.abc import Mapping
from typing import Any

import libvirt
import structlog
from virtrpc.v1.event_pb2 import EventType
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import PowerState

from backends.events import event_of
from backends.libvirt.domains import Domains

_RUNNING = PowerState.POWER_STATE_RUNNING
_PAUSED = PowerState.POWER_STATE_PAUSED
_SHUTDOWN = PowerState.POWER_STATE_SHUTDOWN
_CRASHED = PowerState.POWER_STATE_CRASHED
_SUSPENDED = PowerState.POWER_STATE_SUSPENDED
_UNCHANGED = PowerState.POWER_STATE_UNSPECIFIED
_Kind = tuple["EventType.ValueType", "PowerState.ValueType"]

_LIFECYCLE: Mapping[int, _Kind] = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: (EventType.EVENT_TYPE_STARTED, _RUNNING),
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: (EventType.EVENT_TYPE_PAUSED, _PAUSED),
    libvirt.VIR_DOMAIN_EVENT_RESUMED: (EventType.EVENT_TYPE_RESUMED, _RUNNING),
    libvirt.VIR_DOMAIN_EVENT_STOPPED: (EventType.EVENT_TYPE_STOPPED, _SHUTDOWN),
    libvirt.VIR_DOMAIN_EVENT_CRASHED: (EventType.EVENT_TYPE_CRASHED, _CRASHED),
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: (EventType.EVENT_TYPE_PAUSED, _PAUSED),
}
_DETAILS: Mapping[int, tuple[str, ...]] = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: ("booted", "migrated", "restored", "snapshot", "wakeup"),
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: (
        "user", "migration", "io-error", "watchdog", "restored", "snapshot", "api-error",
        "postcopy", "postcopy-failed",
    ),
    libvirt.VIR_DOMAIN_EVENT_RESUMED: ("unpaused", "migrated", "snapshot", "postcopy"),
    libvirt.VIR_DOMAIN_EVENT_STOPPED: (
        "shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "snapshot",
    ),
    libvirt.VIR_DOMAIN_EVENT_CRASHED: ("panicked", "crash-loaded"),
}  # fmt: skip
_WATCHDOG_ACTIONS = ("none", "pause", "reset", "poweroff", "shutdown", "debug", "inject-nmi")
log = structlog.get_logger()


class Callbacks:
    """Callbacks of the connection for events."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains
        self._paused: set[str] = set()
        self._registered: list[tuple[libvirt.virConnect, int]] = []

    def register(self, connection: libvirt.virConnect) -> None:
        """Registers all, on this connection only; raises libvirt.libvirtError."""
        self._deregister()
        for event_id, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_reboot),
            (libvirt.VIR_DOMAIN_EVENT_ID_WATCHDOG, self._on_watchdog),
            (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, self._on_io_error),
            (libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self._on_job_completed),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, self._on_device_added),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self._on_device_removed),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED, self._on_device_kept),
        ):
            number = connection.domainEventRegisterAny(None, event_id, callback, None)
            self._registered.append((connection, number))
        paused = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_PAUSED)
        self._paused = {domain.UUIDString() for domain in paused}

    def _deregister(self) -> None:
        """Takes them away from a connection, which they would keep from being freed."""
        while self._registered:
            connection, number = self._registered.pop()
            try:
                connection.domainEventDeregisterAny(number)
            except libvirt.libvirtError as error:
                # Here it has gone all the same; a lost libvirtd cannot be told.
                log.debug("libvirtd not told of a callback's end", reason=str(error))

    def _on_lifecycle(
        self,
        _connection: libvirt.virConnect,
        domain: libvirt.virDomain,
        event: int,
        detail: int,
        _data: None,
    ) -> None:
        instance_id = domain.UUIDString()
        if event == libvirt.VIR_DOMAIN_EVENT_DEFINED:
            self._defined(domain, detail)
        elif event == libvirt.VIR_DOMAIN_EVENT_UNDEFINED:
            self._tell(domain, EventType.EVENT_TYPE_DELETED, _SHUTDOWN, "")
        elif event in _LIFECYCLE and not self._is_part_of_start(instance_id, event):
            kind, state = _LIFECYCLE[event]
            word = _word(_DETAILS.get(event, ()), detail)
            if kind == EventType.EVENT_TYPE_STOPPED and word in ("crashed", "failed"):
                kind, state = EventType.EVENT_TYPE_CRASHED, _CRASHED
            elif kind == EventType.EVENT_TYPE_STOPPED and word == "saved":
                kind, state = EventType.EVENT_TYPE_SUSPENDED, _SUSPENDED
            self._tell(domain, kind, state, word)

    def _is_part_of_start(self, instance_id: str, event: int) -> bool:
        """QEMU starts paused; libvirt tells that it was let run, before that it started."""
        if event == libvirt.VIR_DOMAIN_EVENT_SUSPENDED:
            self._paused.add(instance_id)
            return False
        was_paused = instance_id in self._paused
        self._paused.discard(instance_id)
        return event == libvirt.VIR_DOMAIN_EVENT_RESUMED and not was_paused

    def _defined(self, domain: libvirt.virDomain, detail: int) -> None:
        if detail == libvirt.VIR_DOMAIN_EVENT_DEFINED_ADDED:
            self._tell(domain, EventType.EVENT_TYPE_CREATED, _SHUTDOWN, "")
        else:
            self._tell(domain, EventType.EVENT_TYPE_UPDATED, _UNCHANGED, "")

    def _on_reboot(
        self, _connection: libvirt.virConnect, domain: libvirt.virDomain, _data: None
    ) -> None:
        self._domains.rebooted(domain.UUIDString())
        self._tell(domain, EventType.EVENT_TYPE_REBOOTED, _RUNNING, "reset")

    def _on_watchdog(
        self,
        _connection: libvirt.virConnect,
        domain: libvirt.virDomain,
        action: int,
        _data: None,
    ) -> None:
        word = _word(_WATCHDOG_ACTIONS, action)
        self._tell(domain, EventType.EVENT_TYPE_WATCHDOG, _UNCHANGED, word)

    def _on_io_error(
        self,
        _connection: libvirt.virConnect,
        domain: libvirt.virDomain,
        path: str,
        _alias: str,
        _action: int,
        reason: str,
        _data: None,
    ) -> None:
        detail = f"{path}: {reason or 'error'}"
        self._tell(domain, EventType.EVENT_TYPE_IO_ERROR, _UNCHANGED, detail)

    def _on_job_completed(
        self,
        _connection: libvirt.virConnect,
        domain: libvirt.virDomain,
        stats: dict[str, Any],
        _data: None,
    ) -> None:
        self._domains.jobs.tell(domain.UUIDString(), stats)

    def _on_device_added(
        self, _connection: libvirt.virConnect, domain: libvirt.virDomain, alias: str, _data: None
    ) -> None:
        self._tell(domain, EventType.EVENT_TYPE_DEVICE_ADDED, _UNCHANGED, alias)

    def _on_device_removed(
        self, _connection: libvirt.virConnect, domain: libvirt.virDomain, alias: str, _data: None
    ) -> None:
        self._domains.removals.said(domain.UUIDString(), alias, refused=False)
        self._tell(domain, EventType.EVENT_TYPE_DEVICE_REMOVED, _UNCHANGED, alias)

    def _on_device_kept(
        self, _connection: libvirt.virConnect, domain: libvirt.virDomain, alias: str, _data: None
    ) -> None:
        self._domains.removals.said(domain.UUIDString(), alias, refused=True)
        self._tell(domain, EventType.EVENT_TYPE_DEVICE_REMOVAL_FAILED, _UNCHANGED, alias)

    def _tell(
        self,
        domain: libvirt.virDomain,
        kind: "EventType.ValueType",
        state: "PowerState.ValueType",
        detail: str,
    ) -> None:
        instance = Instance(
            instance_id=domain.UUIDString(),
            name=domain.name(),
            power_state=state,
            power_state_reason=detail,
        )
        event = event_of(kind, instance, detail)
        self._domains.happened(instance.instance_id, lambda: event)


def _word(words: tuple[str, ...], number: int) -> str:
    return words[number] if 0 <= number < len(words) else str(number)
