"""GetHost and GetCapabilities: the backend's facts with the daemon's own."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp
from virtrpc.v1 import host_pb2 as pb

from backends.contract import HypervisorFacts
from backends.host_facts import host_facts, host_name
from service.bindings import Bindings
from service.dispatcher import Call
from service.host_state import HostState
from service.traits import capability_traits
from service.truth import Truth
from service.verbs import Verb


@dataclass
class DaemonState:
    """What the daemon knows of itself and of its hypervisor. Event loop only."""

    backend: str
    version: str
    host_id: str
    node_name: str = field(default_factory=host_name)
    """Name of the host and of its one node, until the daemon restarts: it costs a look-up."""
    operation_id: str = ""
    """Operation that changes the host now; empty: none."""
    state: "pb.DaemonState.ValueType" = pb.DAEMON_STATE_STARTING
    connection: "pb.HypervisorConnectionState.ValueType" = pb.HYPERVISOR_CONNECTION_STATE_CONNECTING
    connection_error: str = ""
    facts: HypervisorFacts | None = None
    started_at: Timestamp = field(default_factory=Timestamp)
    connection_since: Timestamp = field(default_factory=Timestamp)
    probed_at: Timestamp = field(default_factory=Timestamp)

    def __post_init__(self) -> None:
        self.started_at.GetCurrentTime()
        self.connection_since.GetCurrentTime()

    def connection_is(
        self, connection: "pb.HypervisorConnectionState.ValueType", *, error: str = ""
    ) -> None:
        """The connection to the hypervisor has changed."""
        self.connection = connection
        self.connection_error = error
        self.connection_since.GetCurrentTime()


class HostVerbs:
    """Verbs about this host and daemon."""

    def __init__(
        self,
        *,
        daemon: DaemonState,
        bindings: Bindings,
        verbs: Iterable[Verb],
        truth: Truth,
        state: HostState,
    ) -> None:
        self.daemon = daemon
        self._bindings = bindings
        self._verbs = sorted(verbs, key=lambda verb: verb.capability)
        self._truth = truth
        self._state = state

    async def get_host(self, _request: pb.GetHostRequest, _call: Call) -> pb.GetHostResponse:
        """See HostService.GetHost."""
        host = self.host()
        host.operation_id = self.daemon.operation_id
        return pb.GetHostResponse(host=host, freshness=self._truth.freshness())

    def host(self) -> pb.Host:
        """The host as it is now, but for what changes it. Callable from any thread."""
        host = host_facts()
        daemon, acceptance = self.daemon, self._state.acceptance
        host.hostname, host.host_id = daemon.node_name, daemon.host_id
        host.backend, host.daemon_version = daemon.backend, daemon.version
        host.daemon_state = daemon.state
        host.daemon_started_at.CopyFrom(daemon.started_at)
        host.enabled, host.disabled_reason = acceptance.accepts, acceptance.reason
        host.maintenance = acceptance.maintenance
        host.aggregates.extend(self._state.aggregates())
        host.connection.state = daemon.connection
        host.connection.error = daemon.connection_error
        host.connection.since.CopyFrom(daemon.connection_since)
        if daemon.facts is not None:
            host.connection.uri = daemon.facts.connection
            host.hypervisor.CopyFrom(hypervisor_info(daemon.facts))
        return host

    def traits(self) -> frozenset[str]:
        """Standard traits that follow from what the host can do."""
        features = self.daemon.facts.features if self.daemon.facts is not None else {}
        can = [name for name, why in features.items() if not why]
        can += [v.capability for v in self._verbs if self._bindings.why_missing(v) is None]
        return capability_traits(can)

    async def get_capabilities(
        self, _request: pb.GetCapabilitiesRequest, _call: Call
    ) -> pb.GetCapabilitiesResponse:
        """See HostService.GetCapabilities."""
        reply = pb.GetCapabilitiesResponse(backend=self.daemon.backend)
        reply.capabilities.extend(self._verb_capabilities())
        facts = self.daemon.facts
        if facts is None:
            return reply
        reply.hypervisor.CopyFrom(hypervisor_info(facts))
        reply.connection_kind = facts.connection
        reply.virt_type, reply.virt_type_reason = facts.virt_type, facts.virt_type_reason
        reply.probed_at.CopyFrom(self.daemon.probed_at)
        for name, why in sorted(facts.features.items()):
            reply.capabilities.add(
                name=name,
                supported=not why,
                reason="PROBE_FAILED" if why else "",
                message=why,
            )
        reply.traits.extend(sorted(self.traits()))
        return reply

    def _verb_capabilities(self) -> list[pb.Capability]:
        by_name: dict[str, pb.Capability] = {}
        for verb in self._verbs:
            why = self._bindings.why_missing(verb)
            probed = verb.capability in self._bindings.missing
            capability = by_name.setdefault(verb.capability, pb.Capability(name=verb.capability))
            capability.supported = why is None
            if why is not None:
                capability.reason = "PROBE_FAILED" if probed else "NOT_IMPLEMENTED"
                capability.message = why
            capability.rpcs.append(f"{verb.service}.{verb.name}")
        return list(by_name.values())


def hypervisor_info(facts: HypervisorFacts) -> pb.HypervisorInfo:
    """The hypervisor and its versions."""
    numbers = [int(part) for part in facts.hypervisor_version.split(".") if part.isdigit()]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return pb.HypervisorInfo(
        type=facts.hypervisor_type,
        version=facts.hypervisor_version,
        version_number=major * 1_000_000 + minor * 1_000 + patch,
        library=facts.library,
        library_version=facts.library_version,
    )
