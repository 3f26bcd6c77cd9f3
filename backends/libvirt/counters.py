"""Counters of running domains, from libvirt's bulk statistics.

Some counters libvirt knows by itself, others it must ask QEMU for. A guest whose
QEMU hangs never answers, and holds up a bulk call for ever. So those are asked
for beside, on a thread that is left behind when it hangs; the next call skips
the domain that is waited for (NOWAIT).
"""

import contextlib
import threading
import time
from collections.abc import Mapping

import libvirt
import structlog
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Sample
from backends.errors import InstanceNotFoundError, UnreachableError, WrongStateError
from backends.libvirt.asked_stats import ACTIVE, Stats, ask_all, ask_one
from backends.libvirt.domains import Domains, is_active
from backends.libvirt.drift import Drift
from backends.libvirt.instances import POWER_STATES
from backends.libvirt.stats import add_asked, add_known

_KNOWN = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
)
_PATIENCE_S = 3.0
_MAX_LEFT_BEHIND = 4
log = structlog.get_logger()


class Counters:
    """Samples of all domains, or of one."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains
        self._drift = Drift(domains)
        self._asked: Mapping[str, Stats] = {}
        self._asking: list[threading.Thread] = []

    def sample(self) -> list[Sample]:
        """All running domains. What QEMU must be asked for is at most one sample older."""
        self._ask_all()
        try:
            rows = self._domains.connection.handles.own.getAllDomainStats(_KNOWN, ACTIVE)
            self._drift.look({d.UUIDString(): _power_state(known) for d, known in rows})
        except libvirt.libvirtError as error:
            raise self._domains.failed(error) from error
        samples = []
        for domain, stats in rows:
            with contextlib.suppress(InstanceNotFoundError):  # it has gone meanwhile
                asked = self._asked.get(domain.UUIDString(), {})
                samples.append(self._sample(domain, stats, asked))
        return samples

    def sample_one(self, instance_id: str) -> Sample:
        """One running domain, of this moment."""
        domain = self._domains.find(instance_id)
        if domain is None:
            raise InstanceNotFoundError(instance_id)
        if not is_active(domain):
            raise WrongStateError("the instance is off: it has no counters")
        connection = self._domains.connection.handles.own
        try:
            stats = ask_one(connection, domain, self._domains.pulls, known=_KNOWN)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, instance_id) from error
        if stats is None:
            raise WrongStateError("the instance is off: it has no counters")
        return self._sample(domain, stats, stats)

    def _sample(self, domain: libvirt.virDomain, known: Stats, asked: Stats) -> Sample:
        instance = self._domains.read(domain)
        sample = Sample(
            instance_id=instance.instance_id,
            cpu_time_ns=known.get("cpu.time", 0),
            diagnostics=add_known(instance, known),
        )
        sample.diagnostics.power_state = _power_state(known)
        add_asked(sample.diagnostics, instance, asked)
        return sample

    def _ask_all(self) -> None:
        """Waits a little for the answers; who hangs is left behind."""
        self._asking = [thread for thread in self._asking if thread.is_alive()]
        if len(self._asking) >= _MAX_LEFT_BEHIND:
            return
        thread = threading.Thread(target=self._ask, name="counters", daemon=True)
        thread.start()
        thread.join(_PATIENCE_S)
        self._asking.append(thread)

    def _ask(self) -> None:
        started = time.monotonic()
        try:
            self._asked = ask_all(self._domains.connection.handles.own, self._domains.pulls)
        except libvirt.libvirtError as error:
            self._domains.failed(error)
            return
        except UnreachableError:
            return
        if time.monotonic() - started > _PATIENCE_S:
            log.warning("a guest's QEMU was slow to answer", seconds=time.monotonic() - started)


def _power_state(known: Stats) -> "PowerState.ValueType":
    return POWER_STATES[known.get("state.state", 0)]
