"""A fresh read never takes the truth back to an older fact."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import cast

import pytest
from virtrpc.v1 import options_pb2
from virtrpc.v1.instance_pb2 import GetInstanceRequest, GetInstanceResponse, Instance
from virtrpc.v1.types_pb2 import POWER_STATE_PAUSED, POWER_STATE_RUNNING

from backends.contract import Lifecycle
from backends.errors import InstanceNotFoundError
from service.dispatcher import Call
from service.identity import Identity
from service.own.instances import InstanceReads
from service.pools import Pools
from service.roles import including
from service.truth import Truth

INSTANCE_ID = "11111111-1111-4111-8111-111111111111"


async def still_there() -> bool:
    return True


CALL = Call(Identity("test", including(options_pb2.ROLE_ADMIN)), None, still_there)
REQUEST = GetInstanceRequest(instance_id=INSTANCE_ID, fresh=True)
WAIT_S = 10.0


def instance(state: int) -> Instance:
    return Instance(instance_id=INSTANCE_ID, power_state=state)  # type: ignore[arg-type]


class SlowHypervisor:
    """Has read a running instance, and is slow to say so."""

    def __init__(self) -> None:
        self.read = asyncio.Event()
        self.answers = threading.Event()
        self._loop = asyncio.get_running_loop()

    def get_instance(self, _request: GetInstanceRequest) -> GetInstanceResponse:
        self._loop.call_soon_threadsafe(self.read.set)
        self.answers.wait(WAIT_S)
        return GetInstanceResponse(instance=instance(POWER_STATE_RUNNING))


class Bench:
    """A truth with one instance, and a fresh read of it under way."""

    def __init__(self) -> None:
        self.truth = Truth()
        self.truth.replace_all([instance(POWER_STATE_RUNNING)])
        self.hypervisor = SlowHypervisor()
        self.pools = Pools.make()
        reads = InstanceReads(
            self.truth, lifecycle=cast("Lifecycle", self.hypervisor), pools=self.pools
        )
        self.reply = asyncio.ensure_future(reads.get_instance(REQUEST, CALL))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await asyncio.wait_for(made.hypervisor.read.wait(), WAIT_S)
    yield made
    made.pools.shutdown()


async def test_instance_that_goes_during_a_fresh_read_stays_gone(bench: Bench) -> None:
    bench.truth.remove(INSTANCE_ID)
    bench.hypervisor.answers.set()
    with pytest.raises(InstanceNotFoundError):
        await bench.reply
    assert INSTANCE_ID not in bench.truth


async def test_change_that_is_told_during_a_fresh_read_is_kept(bench: Bench) -> None:
    bench.truth.put(instance(POWER_STATE_PAUSED))
    bench.hypervisor.answers.set()
    reply = GetInstanceResponse.FromString(await bench.reply)
    assert reply.instance.power_state == POWER_STATE_PAUSED
    assert bench.truth.get(INSTANCE_ID).instance.power_state == POWER_STATE_PAUSED
