"""Counters and sizes for people; what the hypervisor does not count is a "-"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from virtrpc.cli.tables import Column, listing, properties, sections, state
from virtrpc.cli.words import byte_size, kib, length, mib, pairs, seconds, when, word
from virtrpc.v1 import diagnostics_pb2 as messages
from virtrpc.v1.spec_pb2 import DiskFormat
from virtrpc.v1.types_pb2 import PowerState

NOT_COUNTED = "-"


def shown(found: messages.InstanceDiagnostics) -> RenderableType:
    """All counters of an instance."""
    return sections(
        properties(_facts(found)),
        _vcpus(found.vcpus),
        _disks(found.disks),
        _interfaces(found.interfaces),
    )


def block(response: messages.GetBlockStatsResponse) -> RenderableType:
    """The counters of one disk."""
    counters = response.disk.counters
    return properties(
        (
            ("disk", response.disk.device_name),
            ("volume", response.disk.volume_id),
            ("reads", str(counters.read_requests)),
            ("read", byte_size(counters.read_bytes)),
            ("read time", _nanoseconds(counters, "read_time_ns")),
            ("writes", str(counters.write_requests)),
            ("written", byte_size(counters.write_bytes)),
            ("write time", _nanoseconds(counters, "write_time_ns")),
            ("flushes", _counted(counters, "flush_requests")),
            ("flush time", _nanoseconds(counters, "flush_time_ns")),
            ("errors", _counted(counters, "errors")),
            ("since", when(response.counted_since)),
        )
    )


def disk_sizes(disks: Iterable[messages.DiskInfo]) -> RenderableType:
    """A line for each disk."""
    columns = (
        Column("DISK", whole=True),
        Column("ROLE"),
        Column("FORMAT"),
        Column("SIZE", right=True),
        Column("ALLOCATED", right=True),
        Column("MAY GROW", right=True, wide=True),
        Column("PATH"),
        Column("BACKED BY", wide=True),
    )
    return listing(columns, [_disk_size(disk) for disk in disks])


def bandwidth(counters: Iterable[messages.BandwidthCounter]) -> RenderableType:
    """A line for each interface."""
    columns = (
        Column("INSTANCE", whole=True),
        Column("INTERFACE", whole=True),
        Column("IN", right=True),
        Column("OUT", right=True),
        Column("SINCE", whole=True, wide=True),
    )
    return listing(
        columns,
        [
            (
                counter.instance_id,
                counter.mac_address,
                _bytes(counter, "bytes_in"),
                _bytes(counter, "bytes_out"),
                when(counter.counted_since),
            )
            for counter in counters
        ],
    )


def volumes(used: Iterable[messages.VolumeUsage]) -> RenderableType:
    """A line for each attached volume."""
    columns = (
        Column("VOLUME", whole=True),
        Column("INSTANCE", whole=True, wide=True),
        Column("DISK", whole=True),
        *_COUNTER_COLUMNS,
        Column("SINCE", whole=True, wide=True),
    )
    return listing(
        columns,
        [
            (
                volume.volume_id,
                volume.instance_id,
                volume.device_name,
                *_counters(volume.counters),
                when(volume.counted_since),
            )
            for volume in used
        ],
    )


def usage(held: Iterable[messages.InstanceUsage]) -> RenderableType:
    """A line for each instance."""
    columns = (
        Column("ID", whole=True),
        Column("NAME"),
        Column("STATE", whole=True),
        Column("VCPUS", right=True, whole=True),
        Column("MEMORY", right=True, whole=True),
        Column("OVERHEAD", right=True, whole=True, wide=True),
        Column("DISK", right=True, whole=True, wide=True),
        Column("ALLOCATED", right=True, whole=True, wide=True),
        Column("ALLOCATIONS", wide=True),
    )
    return listing(columns, [_usage(instance) for instance in held])


_COUNTER_COLUMNS = (
    Column("READS", right=True),
    Column("READ", right=True),
    Column("WRITES", right=True),
    Column("WRITTEN", right=True),
    Column("ERRORS", right=True, wide=True),
)


def _facts(found: messages.InstanceDiagnostics) -> Iterator[tuple[str, str | Text]]:
    yield "id", found.instance_id
    yield "state", state(word(PowerState, found.power_state))
    yield "hypervisor", f"{found.hypervisor} by {found.driver}"
    yield "up for", length(found.uptime) if found.HasField("uptime") else ""
    yield "counted since", when(found.counted_since)
    yield "memory", _memory(found.memory) if found.HasField("memory") else ""
    yield "config drive", "yes" if found.config_drive else ""


def _memory(memory: messages.MemoryDiagnostics) -> str:
    words = [f"{kib(memory.current_kib)} of {kib(memory.maximum_kib)}"]
    if memory.HasField("used_kib"):
        words.append(f"{kib(memory.used_kib)} used by the guest")
    if memory.HasField("resident_kib"):
        words.append(f"{kib(memory.resident_kib)} of the host's")
    return ", ".join(words)


def _vcpus(vcpus: Iterable[messages.VcpuDiagnostics]) -> Table:
    columns = (
        Column("VCPU", right=True),
        Column("CPU TIME", right=True),
        Column("USED", right=True),
        Column("WAITED", right=True),
    )
    return listing(
        columns,
        [
            (
                str(vcpu.vcpu_id),
                seconds(vcpu.time_ns / 1e9),
                f"{vcpu.utilisation_percent:.0f} %"
                if vcpu.HasField("utilisation_percent")
                else NOT_COUNTED,
                _nanoseconds(vcpu, "delay_ns"),
            )
            for vcpu in vcpus
        ],
    )


def _disks(disks: Iterable[messages.DiskDiagnostics]) -> Table:
    columns = (Column("DISK", whole=True), *_COUNTER_COLUMNS, Column("VOLUME", wide=True))
    rows = [(disk.device_name, *_counters(disk.counters), disk.volume_id) for disk in disks]
    return listing(columns, rows)


def _counters(counters: messages.DiskCounters) -> tuple[str, ...]:
    return (
        str(counters.read_requests),
        byte_size(counters.read_bytes),
        str(counters.write_requests),
        byte_size(counters.write_bytes),
        _counted(counters, "errors"),
    )


def _interfaces(interfaces: Iterable[messages.InterfaceDiagnostics]) -> Table:
    columns = (
        Column("INTERFACE", whole=True),
        Column("IN", right=True),
        Column("RATE", right=True),
        Column("OUT", right=True),
        Column("RATE", right=True),
        Column("LOST", right=True),
        Column("HOST DEVICE", wide=True),
    )
    return listing(columns, [_interface(interface) for interface in interfaces])


def _interface(interface: messages.InterfaceDiagnostics) -> tuple[str, ...]:
    counters = interface.counters
    counted = interface.HasField("counters")
    lost = counters.received_errors + counters.received_drops
    lost += counters.sent_errors + counters.sent_drops
    return (
        interface.mac_address,
        byte_size(counters.received_bytes) if counted else NOT_COUNTED,
        _rate(interface, "received_bytes_per_s"),
        byte_size(counters.sent_bytes) if counted else NOT_COUNTED,
        _rate(interface, "sent_bytes_per_s"),
        str(lost) if counted else NOT_COUNTED,
        interface.host_device,
    )


def _disk_size(disk: messages.DiskInfo) -> tuple[str, ...]:
    return (
        disk.device_name,
        disk.role,
        word(DiskFormat, disk.format),
        byte_size(disk.virtual_size_bytes),
        byte_size(disk.allocated_bytes),
        byte_size(disk.over_committed_bytes),
        disk.path,
        disk.backing_path,
    )


def _usage(instance: messages.InstanceUsage) -> tuple[str | Text, ...]:
    return (
        instance.instance_id,
        instance.name,
        state(word(PowerState, instance.power_state)),
        str(instance.vcpus),
        mib(instance.memory_mib),
        mib(instance.overhead_memory_mib),
        mib(instance.disk_mib),
        mib(instance.disk_allocated_mib),
        pairs(instance.allocations),
    )


def _counted(message: Any, field: str) -> str:
    return str(getattr(message, field)) if message.HasField(field) else NOT_COUNTED


def _bytes(message: Any, field: str) -> str:
    return byte_size(getattr(message, field)) if message.HasField(field) else NOT_COUNTED


def _rate(message: Any, field: str) -> str:
    if not message.HasField(field):
        return NOT_COUNTED
    return f"{byte_size(round(getattr(message, field)))}/s"


def _nanoseconds(message: Any, field: str) -> str:
    return seconds(getattr(message, field) / 1e9) if message.HasField(field) else NOT_COUNTED
