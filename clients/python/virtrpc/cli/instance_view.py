"""Instances for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from virtrpc.cli.session import Session
from virtrpc.cli.tables import Column, listing, properties, sections, state
from virtrpc.cli.words import kib, mib, pairs, seconds, when, word
from virtrpc.v1.instance_pb2 import (
    AttachedDisk,
    AttachedInterface,
    Instance,
    MachineState,
    Share,
)
from virtrpc.v1.spec_pb2 import DiskBus, DiskFormat
from virtrpc.v1.types_pb2 import Freshness, PowerState


def note_freshness(session: Session, freshness: Freshness) -> None:
    """Says so when the facts are old because the hypervisor is out of reach."""
    if freshness.stale:
        session.note(f"the hypervisor is out of reach: facts of {when(freshness.observed_at)}")


def identifiers(instances: Iterable[Instance]) -> RenderableType:
    """A UUID a line."""
    return "\n".join(instance.instance_id for instance in instances)


def listed(instances: Iterable[Instance]) -> RenderableType:
    """A line for each instance."""
    columns = (
        Column("ID", whole=True),
        Column("NAME"),
        Column("STATE", whole=True),
        Column("VCPUS", right=True, whole=True),
        Column("MEMORY", right=True, whole=True),
        Column("CREATED", whole=True, wide=True),
        Column("LABELS", wide=True),
    )
    return listing(columns, [_row(instance) for instance in instances])


def shown(instance: Instance) -> RenderableType:
    """Everything about an instance: its facts, then its disks and interfaces."""
    machine = instance.effective if instance.HasField("effective") else instance.persistent
    return sections(
        properties(_facts(instance, machine)),
        _disks(machine.disks),
        _interfaces(machine.interfaces),
        _shares(instance.shares),
    )


def _row(instance: Instance) -> tuple[str | Text, ...]:
    return (
        instance.instance_id,
        instance.name,
        state(word(PowerState, instance.power_state)),
        str(instance.vcpus),
        kib(instance.memory_kib),
        when(instance.created_at),
        pairs(instance.labels),
    )


def _facts(instance: Instance, machine: MachineState) -> Iterator[tuple[str, str | Text]]:
    yield "id", instance.instance_id
    yield "name", instance.name
    yield "state", state(word(PowerState, instance.power_state))
    yield "reason", instance.power_state_reason
    yield "vcpus", str(instance.vcpus)
    yield "memory", f"{kib(instance.memory_kib)} of {kib(instance.max_memory_kib)}"
    yield "cpu time", seconds(instance.cpu_time_ns / 1e9) if instance.cpu_time_ns else ""
    yield "machine", " ".join(filter(None, (instance.virt_type, machine.machine_type)))
    yield "created", when(instance.created_at)
    yield "started", when(instance.started_at)
    yield "image", instance.spec.image.image_id
    yield "kernel", instance.spec.image.kernel_image_id
    yield "root disk", _root_disk(instance)
    yield "labels", pairs(instance.labels)
    yield "metadata", pairs(instance.metadata)
    yield "notes", ", ".join(_notes(instance))
    yield "operation", instance.operation_id


def _root_disk(instance: Instance) -> str:
    size_gib = instance.spec.flavor.root_disk_gib
    return mib(size_gib * 1024) if size_gib else ""


def _notes(instance: Instance) -> Iterator[str]:
    if not instance.managed:
        yield "not made by the service"
    if not instance.bootable:
        yield "may not be powered on"
    if instance.rescued:
        since = f" since {when(instance.rescued_at)}" if instance.HasField("rescued_at") else ""
        yield " ".join(filter(None, ("in rescue", instance.rescue_image_id))) + since
    if instance.HasField("thaw_at"):
        yield f"filesystems frozen, thawed at {when(instance.thaw_at)}"
    if instance.HasField("reclaim_at"):
        yield f"deleted, destroyed at {when(instance.reclaim_at)}"


def _disks(disks: Iterable[AttachedDisk]) -> Table:
    columns = (
        Column("DISK", whole=True),
        Column("ROLE"),
        Column("BUS"),
        Column("FORMAT"),
        Column("SOURCE"),
    )
    return listing(
        columns,
        [
            (
                disk.device_name,
                disk.role,
                word(DiskBus, disk.bus),
                word(DiskFormat, disk.format),
                disk.source,
            )
            for disk in disks
        ],
    )


def _shares(shares: Iterable[Share]) -> Table:
    columns = (Column("SHARE", whole=True), Column("TAG"), Column("PATH"), Column("MODE"))
    rows = [
        (share.share_id, share.tag, share.path, "read-only" if share.read_only else "")
        for share in shares
    ]
    return listing(columns, rows)


def _interfaces(interfaces: Iterable[AttachedInterface]) -> Table:
    columns = (
        Column("INTERFACE", whole=True),
        Column("TYPE"),
        Column("SOURCE"),
        Column("MODEL"),
        Column("HOST DEVICE"),
    )
    return listing(
        columns,
        [(nic.mac_address, nic.type, nic.source, nic.model, nic.host_device) for nic in interfaces],
    )
