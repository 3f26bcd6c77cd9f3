"""DiagnosticsService: counters from the sampler, usage from the truth, reasons from the book."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from virtrpc.v1 import diagnostics_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance, InstanceView
from virtrpc.v1.operation_pb2 import Operation
from virtrpc.v1.types_pb2 import PageRequest, PowerState

from backends.contract import Sample
from backends.errors import InstanceNotFoundError, NotFoundError, WrongStateError
from backends.specification import MIB_PER_GIB
from service.dispatcher import Call
from service.operations.book import OperationBook
from service.own.paging import last_id, page_size, page_token
from service.pools import Pools
from service.samples import Sampled, Samples
from service.truth import Truth, viewed

_DEFAULT_OPERATIONS = 10
T = TypeVar("T")


class DiagnosticsVerbs:
    """Reads of counters; only `fresh` asks the hypervisor."""

    def __init__(
        self,
        *,
        truth: Truth,
        samples: Samples,
        book: OperationBook,
        pools: Pools,
        sample_one: Callable[[str], Sample],
    ) -> None:
        self._truth = truth
        self._samples = samples
        self._book = book
        self._pools = pools
        self._sample_one = sample_one

    async def get_instance_diagnostics(
        self, request: pb.GetInstanceDiagnosticsRequest, _call: Call
    ) -> pb.GetInstanceDiagnosticsResponse:
        """See DiagnosticsService.GetInstanceDiagnostics."""
        instance = self._truth.get(request.instance_id).instance
        sampled = await self._sampled(instance, fresh=request.fresh)
        if sampled is None:
            bare = pb.InstanceDiagnostics(
                instance_id=instance.instance_id, power_state=instance.power_state
            )
            return pb.GetInstanceDiagnosticsResponse(
                diagnostics=bare, freshness=self._truth.freshness()
            )
        return pb.GetInstanceDiagnosticsResponse(
            diagnostics=sampled.diagnostics, freshness=sampled.freshness()
        )

    async def get_block_stats(
        self, request: pb.GetBlockStatsRequest, _call: Call
    ) -> pb.GetBlockStatsResponse:
        """See DiagnosticsService.GetBlockStats."""
        instance = self._truth.get(request.instance_id).instance
        name = request.device_name.removeprefix("/dev/")
        if all(disk.device_name != name for disk in instance.persistent.disks):
            raise NotFoundError(
                f"the instance has no disk {name}", reason="DISK_NOT_FOUND", field="device_name"
            )
        sampled = await self._sampled(instance, fresh=request.fresh)
        if sampled is None:
            raise WrongStateError("the instance is off: its disks have no counters")
        disk = next((d for d in sampled.diagnostics.disks if d.device_name == name), None)
        return pb.GetBlockStatsResponse(
            disk=disk or pb.DiskDiagnostics(device_name=name),
            counted_since=_since(sampled),
            freshness=sampled.freshness(),
        )

    async def list_bandwidth_counters(
        self, request: pb.ListBandwidthCountersRequest, _call: Call
    ) -> pb.ListBandwidthCountersResponse:
        """See DiagnosticsService.ListBandwidthCounters."""
        rows = sorted(
            (row for sampled in self._running(request.instance_ids) for row in _bandwidth(sampled)),
            key=lambda row: (row.instance_id, row.mac_address),
        )
        page, token = _page(
            rows, request, request.page, lambda r: f"{r.instance_id}/{r.mac_address}"
        )
        return pb.ListBandwidthCountersResponse(
            counters=page, next_page_token=token, freshness=self._truth.freshness()
        )

    async def list_volume_usage(
        self, request: pb.ListVolumeUsageRequest, _call: Call
    ) -> pb.ListVolumeUsageResponse:
        """See DiagnosticsService.ListVolumeUsage."""
        wanted = {volume_id.lower() for volume_id in request.volume_ids}
        rows = sorted(
            (
                row
                for sampled in self._running(request.instance_ids)
                for row in self._volumes(sampled)
                if not wanted or row.volume_id in wanted
            ),
            key=lambda row: (row.instance_id, row.device_name),
        )
        page, token = _page(
            rows, request, request.page, lambda r: f"{r.instance_id}/{r.device_name}"
        )
        return pb.ListVolumeUsageResponse(
            volumes=page, next_page_token=token, freshness=self._truth.freshness()
        )

    async def list_instance_usage(
        self, request: pb.ListInstanceUsageRequest, _call: Call
    ) -> pb.ListInstanceUsageResponse:
        """See DiagnosticsService.ListInstanceUsage."""
        wanted = {instance_id.lower() for instance_id in request.instance_ids}
        rows = [
            _usage(record.instance)
            for record in self._truth.ordered()
            if not wanted or record.instance_id in wanted
        ]
        page, token = _page(rows, request, request.page, lambda row: row.instance_id)
        return pb.ListInstanceUsageResponse(
            instances=page, next_page_token=token, freshness=self._truth.freshness()
        )

    async def explain_instance(
        self, request: pb.ExplainInstanceRequest, _call: Call
    ) -> pb.ExplainInstanceResponse:
        """See DiagnosticsService.ExplainInstance."""
        most = request.max_operations or _DEFAULT_OPERATIONS
        about = (o for o in self._book.newest_first() if o.instance_id == request.instance_id)
        operations = [operation for operation, _ in zip(about, range(most), strict=False)]
        response = pb.ExplainInstanceResponse(
            operations=operations, freshness=self._truth.freshness()
        )
        for operation in response.operations:
            operation.ClearField("result")
        if request.instance_id in self._truth:
            known = self._truth.get(request.instance_id).instance
            response.instance.CopyFrom(viewed(known, InstanceView.INSTANCE_VIEW_BASIC))
        elif not operations:
            raise InstanceNotFoundError(request.instance_id)
        _add_wait(response, stale=self._truth.stale)
        _add_last_error(response)
        response.summary = _summary(response)
        return response

    async def _sampled(self, instance: Instance, *, fresh: bool) -> Sampled | None:
        """The last sample, or one of this moment; None where the instance is off."""
        if not instance.HasField("effective"):
            return None
        sampled = self._samples.get(instance.instance_id)
        if sampled is not None and not fresh:
            return sampled
        loop = asyncio.get_running_loop()
        sample = await loop.run_in_executor(
            self._pools.reads, self._sample_one, instance.instance_id
        )
        return self._samples.take_one(sample)

    def _running(self, instance_ids: Iterable[str]) -> Iterator[Sampled]:
        wanted = {instance_id.lower() for instance_id in instance_ids}
        for record in self._truth.ordered():
            sampled = self._samples.get(record.instance_id)
            if sampled is not None and (not wanted or record.instance_id in wanted):
                yield sampled

    def _volumes(self, sampled: Sampled) -> Iterator[pb.VolumeUsage]:
        instance = self._truth.get(sampled.diagnostics.instance_id).instance
        attachments = {d.device_name: d.attachment_id for d in instance.effective.disks}
        for disk in sampled.diagnostics.disks:
            if disk.volume_id:
                yield pb.VolumeUsage(
                    volume_id=disk.volume_id,
                    instance_id=instance.instance_id,
                    attachment_id=attachments.get(disk.device_name, ""),
                    device_name=disk.device_name,
                    counters=disk.counters,
                    counted_since=_since(sampled),
                )


def _since(sampled: Sampled) -> Timestamp | None:
    """Since when the counters count; None where that is not known."""
    diagnostics = sampled.diagnostics
    return diagnostics.counted_since if diagnostics.HasField("counted_since") else None


def _bandwidth(sampled: Sampled) -> Iterator[pb.BandwidthCounter]:
    for interface in sampled.diagnostics.interfaces:
        row = pb.BandwidthCounter(
            instance_id=sampled.diagnostics.instance_id,
            port_id=interface.port_id,
            mac_address=interface.mac_address,
            counted_since=_since(sampled),
        )
        if interface.HasField("counters"):
            row.bytes_in = interface.counters.received_bytes
            row.bytes_out = interface.counters.sent_bytes
        yield row


def _usage(instance: Instance) -> pb.InstanceUsage:
    flavor = instance.spec.flavor
    return pb.InstanceUsage(
        instance_id=instance.instance_id,
        name=instance.name,
        managed=instance.managed,
        power_state=instance.power_state,
        vcpus=instance.vcpus,
        memory_mib=instance.max_memory_kib // 1024,
        disk_mib=(flavor.root_disk_gib + flavor.ephemeral_disk_gib) * MIB_PER_GIB + flavor.swap_mib,
        allocations=instance.spec.allocations,
    )


def _page(
    rows: Sequence[T], request: Message, page: PageRequest, key: Callable[[T], str]
) -> tuple[Sequence[T], str]:
    """One page of ordered rows, and the token of the next."""
    last, size = last_id(request, page), page_size(page)
    following = [row for row in rows if key(row) > last]
    token = page_token(request, key(following[size - 1])) if len(following) > size else ""
    return following[:size], token


def _add_wait(response: pb.ExplainInstanceResponse, *, stale: bool) -> None:
    """What the newest operation waits for, where one has not ended."""
    running: Operation | None = next((o for o in response.operations if not o.done), None)
    if running is None:
        return
    wait = response.waiting
    wait.operation_id = running.operation_id
    wait.since.CopyFrom(
        running.started_at if running.HasField("started_at") else running.created_at
    )
    if stale:
        wait.cause, wait.message = pb.WAIT_CAUSE_CONNECTION, "the hypervisor is out of reach"
    elif not running.HasField("started_at"):
        wait.cause, wait.message = pb.WAIT_CAUSE_WORKER, "all workers are busy"
    else:
        wait.cause = pb.WAIT_CAUSE_HYPERVISOR
        wait.message = f"{running.verb} is at {running.phase or 'its first step'}"


def _add_last_error(response: pb.ExplainInstanceResponse) -> None:
    failed = next((o for o in response.operations if o.HasField("error")), None)
    if failed is None:
        return
    error = response.last_error
    error.operation_id, error.message = failed.operation_id, failed.error.message
    error.time.CopyFrom(failed.ended_at if failed.HasField("ended_at") else failed.created_at)
    error.call = failed.verb
    error.code = failed.error.metadata.get("libvirt_code", failed.error.reason)


def _summary(response: pb.ExplainInstanceResponse) -> str:
    """One sentence."""
    if response.HasField("waiting"):
        return f"Waits: {response.waiting.message}."
    if not response.HasField("instance"):
        last = response.operations[0]
        return f"Not on this host; the last operation on it was {last.verb}."
    state = PowerState.Name(response.instance.power_state).removeprefix("POWER_STATE_")
    reason = response.instance.power_state_reason
    return f"Is {state}{f' ({reason})' if reason else ''}; no operation runs."
