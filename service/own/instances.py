"""GetInstance and ListInstances, from the truth in memory."""

import asyncio
from collections.abc import Callable

from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.instance_pb2 import InstanceView

from backends.contract import Lifecycle
from service.dispatcher import Call
from service.own.paging import last_id, page_size, page_token
from service.pools import Pools
from service.truth import Record, Truth


class InstanceReads:
    """Reads of instances; they never wait for a mutation or for the hypervisor."""

    def __init__(self, truth: Truth, *, lifecycle: Lifecycle | None, pools: Pools) -> None:
        self._truth = truth
        self._lifecycle = lifecycle
        self._pools = pools

    async def get_instance(self, request: pb.GetInstanceRequest, _call: Call) -> bytes:
        """See InstanceService.GetInstance."""
        record = self._truth.get(request.instance_id)
        if request.fresh and self._lifecycle is not None:
            record = await self._asked(self._lifecycle, request, record)
        view = request.view or InstanceView.INSTANCE_VIEW_FULL
        rest = pb.GetInstanceResponse(freshness=self._truth.freshness())
        return record.serialised(view) + rest.SerializeToString()

    async def list_instances(self, request: pb.ListInstancesRequest, _call: Call) -> bytes:
        """See InstanceService.ListInstances."""
        view = request.view or InstanceView.INSTANCE_VIEW_BASIC
        size = page_size(request.page)
        matching = self._matching(request)
        last = last_id(request, request.page)
        page = [record for record in matching if record.instance_id > last] if last else matching
        rest = pb.ListInstancesResponse(
            total_count=len(matching), freshness=self._truth.freshness()
        )
        if len(page) > size:
            rest.next_page_token = page_token(request, page[size - 1].instance_id)
        shown = (record.serialised(view) for record in page[:size])
        return b"".join(shown) + rest.SerializeToString()

    def _matching(self, request: pb.ListInstancesRequest) -> list[Record]:
        records = self._truth.ordered()
        if not request.include_soft_deleted:
            records = [record for record in records if not record.hidden]
        for wanted in _filters(request):
            records = [record for record in records if wanted(record.instance)]
        return records

    async def _asked(
        self, lifecycle: Lifecycle, request: pb.GetInstanceRequest, known: Record
    ) -> Record:
        loop = asyncio.get_running_loop()
        reply = await loop.run_in_executor(self._pools.reads, lifecycle.get_instance, request)
        # What was told meanwhile is newer than the reply; an instance may have gone.
        if self._truth.get(request.instance_id) is known:
            self._truth.put(reply.instance)
        return self._truth.get(request.instance_id)


def _filters(request: pb.ListInstancesRequest) -> list[Callable[[pb.Instance], bool]]:
    filters: list[Callable[[pb.Instance], bool]] = []
    if request.power_states:
        states = frozenset(request.power_states)
        filters.append(lambda instance: instance.power_state in states)
    if request.labels:
        wanted = dict(request.labels).items()
        filters.append(lambda instance: wanted <= dict(instance.labels).items())
    return filters
