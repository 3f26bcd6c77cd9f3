"""Resources are told from the last sample, and what they are worth while nobody can be asked."""

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance

from backends.contract import Backend, HostSample
from backends.errors import UnreachableError
from service.bindings import Bindings
from service.dispatcher import Call
from service.host_state import HostState
from service.inventory import InventoryPolicy
from service.own.host import DaemonState, HostVerbs
from service.own.resources import ResourceVerbs
from service.pools import Pools
from service.truth import Truth

CALL = cast("Call", None)


class Hypervisor:
    """Counts how often it was asked, and can be out of reach."""

    def __init__(self) -> None:
        self.asked = 0
        self.lost = threading.Event()

    def sample_host(self, _instances: Iterable[Instance]) -> HostSample:
        self.asked += 1
        if self.lost.is_set():
            raise UnreachableError("lost")
        node = pb.GetAvailableResourceResponse(vcpus=self.asked)
        return HostSample(node=node, guest_cpu_features=frozenset({"avx"}))


class Bench:
    """The verbs over a hypervisor that was not reached yet."""

    def __init__(self, folder: Path) -> None:
        self.hypervisor, self.truth, self.pools = Hypervisor(), Truth(), Pools.make()
        self.state = HostState(folder / "host.sqlite")
        host = HostVerbs(
            daemon=DaemonState(backend="x", version="", host_id="i", node_name="n"),
            bindings=Bindings(own=[], facets=[]),
            verbs=[],
            truth=self.truth,
            state=self.state,
        )
        self.verbs = ResourceVerbs(
            backend=cast("Backend", cast("Any", self.hypervisor)),
            host=host,
            state=self.state,
            truth=self.truth,
            pools=self.pools,
            policy=InventoryPolicy(),
        )

    async def node(self, *, fresh: bool = False) -> pb.GetAvailableResourceResponse:
        request = pb.GetAvailableResourceRequest(fresh=fresh)
        return await self.verbs.get_available_resource(request, CALL)

    async def available(self) -> bool:
        reply = await self.verbs.list_nodes(pb.ListNodesRequest(fresh=True), CALL)
        return reply.nodes[0].available


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.state.close()
    made.pools.shutdown()


async def test_host_that_was_never_reached_is_unavailable(bench: Bench) -> None:
    for fresh in (False, True):
        with pytest.raises(UnreachableError):
            await bench.node(fresh=fresh)
    with pytest.raises(UnreachableError):
        await bench.verbs.get_inventory(pb.GetInventoryRequest(), CALL)
    assert bench.hypervisor.asked == 0


async def test_only_fresh_reads_ask(bench: Bench) -> None:
    bench.truth.connected()
    assert [(await bench.node()).vcpus for _ in range(3)] == [1, 1, 1]
    inventory = await bench.verbs.get_inventory(pb.GetInventoryRequest(), CALL)
    assert "HW_CPU_X86_AVX" in inventory.providers[0].traits
    assert (await bench.node(fresh=True)).vcpus == 2
    assert (await bench.node()).vcpus == 2


async def test_lost_hypervisor_leaves_the_last_facts_stale(bench: Bench) -> None:
    bench.truth.connected()
    known = await bench.node()
    bench.hypervisor.lost.set()
    assert not await bench.available()
    bench.truth.disconnected()
    for fresh in (False, True):
        told = await bench.node(fresh=fresh)
        assert told.freshness.stale
        assert told.vcpus == known.vcpus
        assert told.freshness.observed_at == known.freshness.observed_at
    bench.hypervisor.lost.clear()
    bench.truth.connected()
    assert await bench.available()
