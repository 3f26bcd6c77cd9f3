"""What the host has: resources, inventory, nodes, and what an instance takes beyond its flavor."""

import asyncio
import time
from dataclasses import dataclass

import structlog
from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1.spec_pb2 import InstanceSpec
from virtrpc.v1.types_pb2 import Freshness

from backends.contract import Backend, HostSample
from backends.errors import BlockedError, NotFoundError, UnreachableError
from backends.plan import InstancePlan
from backends.plan.room import disk_overhead_mib, memory_overhead_mib
from service.dispatcher import Call
from service.host_state import HostState
from service.inventory import InventoryPolicy, providers
from service.own.host import HostVerbs, hypervisor_info
from service.pools import Pools
from service.traits import DISABLED, cpu_traits
from service.truth import Truth

log = structlog.get_logger()


@dataclass(frozen=True)
class Sampled:
    """A sample of the host, and when it was taken."""

    sample: HostSample
    at_ns: int


class ResourceVerbs:
    """Reads of what the host has, from its last sample. Event loop only."""

    def __init__(
        self,
        *,
        backend: Backend,
        host: HostVerbs,
        state: HostState,
        truth: Truth,
        pools: Pools,
        policy: InventoryPolicy,
    ) -> None:
        self._backend = backend
        self._host = host
        self._state = state
        self._truth = truth
        self._pools = pools
        self._policy = policy
        self._last: Sampled | None = None

    async def sample(self) -> Sampled:
        """Asks host and hypervisor; raises UnreachableError."""
        loop = asyncio.get_running_loop()
        sample = await loop.run_in_executor(
            self._pools.reads, self._backend.sample_host, self._truth.all()
        )
        self._last = Sampled(sample, time.time_ns())
        return self._last

    async def get_available_resource(
        self, request: pb.GetAvailableResourceRequest, _call: Call
    ) -> pb.GetAvailableResourceResponse:
        """See HostService.GetAvailableResource."""
        self._require_node(request.node_name)
        return self._node(await self._sampled(fresh=request.fresh))

    async def get_inventory(
        self, request: pb.GetInventoryRequest, _call: Call
    ) -> pb.GetInventoryResponse:
        """See HostService.GetInventory."""
        self._require_node(request.node_name)
        sampled = await self._sampled(fresh=False)
        node = self._node(sampled)
        traits = {*self._host.traits(), *cpu_traits(sampled.sample.guest_cpu_features)}
        if not self._state.acceptance.accepts:
            traits.add(DISABLED)
        aggregate_ids = [aggregate.aggregate_id for aggregate in self._state.aggregates()]
        found = providers(node, self._policy, traits=traits, aggregate_ids=aggregate_ids)
        return pb.GetInventoryResponse(providers=found, freshness=node.freshness)

    async def estimate_instance_overhead(
        self, request: pb.EstimateInstanceOverheadRequest, _call: Call
    ) -> pb.EstimateInstanceOverheadResponse:
        """See HostService.EstimateInstanceOverhead."""
        plan = InstancePlan("", InstanceSpec(flavor=request.flavor, machine=request.machine))
        _raise_errors(plan)
        return pb.EstimateInstanceOverheadResponse(
            memory_mib=memory_overhead_mib(request.flavor, plan.machine),
            disk_mib=disk_overhead_mib(),
            vcpus=1 if plan.extra.emulator_threads_policy == "isolate" else 0,
        )

    async def list_nodes(self, request: pb.ListNodesRequest, _call: Call) -> pb.ListNodesResponse:
        """See HostService.ListNodes."""
        available = not self._truth.stale
        if request.fresh:
            available = await self._answers()
        daemon = self._host.daemon
        node = pb.Node(name=daemon.node_name, node_id=daemon.host_id, available=available)
        return pb.ListNodesResponse(nodes=[node], freshness=self._truth.freshness())

    async def _answers(self) -> bool:
        """The hypervisor is within reach now."""
        try:
            await self.sample()
        except UnreachableError as error:
            log.info("the hypervisor does not answer", reason=str(error))
            return False
        return True

    async def _sampled(self, *, fresh: bool) -> Sampled:
        """The last sample; a new one where it is asked for, or there is none."""
        if self._last is not None and (self._truth.stale or not fresh):
            return self._last
        if self._truth.stale:
            raise UnreachableError("the hypervisor has not been reached yet")
        return await self.sample()

    def _node(self, sampled: Sampled) -> pb.GetAvailableResourceResponse:
        node = pb.GetAvailableResourceResponse()
        node.CopyFrom(sampled.sample.node)
        daemon = self._host.daemon
        node.node_name, node.node_id = daemon.node_name, daemon.host_id
        if daemon.facts is not None:
            node.hypervisor.CopyFrom(hypervisor_info(daemon.facts))
        node.freshness.CopyFrom(Freshness(stale=self._truth.stale))
        node.freshness.observed_at.FromNanoseconds(sampled.at_ns)
        return node

    def _require_node(self, name: str) -> None:
        if name and name != self._host.daemon.node_name:
            raise NotFoundError(
                f"this service has no node {name}",
                reason="NODE_NOT_FOUND",
                field="node_name",
                metadata={"node_name": name},
            )


def _raise_errors(plan: InstancePlan) -> None:
    """Raises what is wrong with a flavor, at its path in this request."""
    for error in plan.errors:
        error.field = error.field.removeprefix("spec.")
    if len(plan.errors) == 1:
        raise plan.errors[0]
    if plan.errors:
        raise BlockedError(plan.errors)
