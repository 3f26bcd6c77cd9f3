"""`volume`: those that instances have, attached, changed and detached."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import click
from rich.console import RenderableType

from virtrpc.cli.change import change, change_at_length, duration
from virtrpc.cli.command import Noun, mutation_options, no_wait_option, timeout_option
from virtrpc.cli.naming import instance_argument, instance_id
from virtrpc.cli.parameters import BYTES, EnumChoice
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.structure import structure
from virtrpc.cli.tables import Column, listing, properties
from virtrpc.cli.volume_options import connection, volume_options
from virtrpc.cli.words import byte_size, word
from virtrpc.v1 import volume_pb2 as messages
from virtrpc.v1.instance_pb2 import AttachedDisk, GetInstanceRequest
from virtrpc.v1.spec_pb2 import BlockDevice, DiskBus, DiskDeviceType, DiskFormat

_UUID = click.UUID
volume_argument = click.argument("volume_id", metavar="VOLUME", type=_UUID)
attachment_option = click.option(
    "--attachment", type=_UUID, help="Only by this attachment.  [default: whatever it is]"
)


@click.group(cls=Noun)
def noun() -> None:
    """The volumes of instances; a volume is named by its UUID."""


@noun.command("list")
@instance_argument
@pass_session
def list_(session: Session, /, *, instance: str) -> None:
    """Lists the volumes of an instance."""
    request = GetInstanceRequest(instance_id=instance_id(session.client, instance))
    found = session.client.instances.GetInstance(request).instance
    disks = [disk for disk in found.persistent.disks if disk.volume_id]
    document = {"volumes": [structure(disk) for disk in disks]}
    session.output.document(document, lambda: _listed(disks))


@noun.command("attach")
@instance_argument
@volume_options
@click.option("--id", "volume_id", type=_UUID, help="Its UUID.  [default: a random one]")
@click.option("--attachment", type=_UUID, help="Of this attachment.  [default: the volume's]")
@click.option("--device", "device_name", default="", metavar="NAME", help="E.g. vdb.")
@click.option("--bus", type=EnumChoice(DiskBus), help="[default: that of the name, else virtio]")
@click.option("--type", "device_type", type=EnumChoice(DiskDeviceType), help="[default: disk]")
@click.option("--boot-index", type=click.IntRange(0, 255), help="Place in the boot order.")
@timeout_option("How long the storage may take.  [default: 60]")
@mutation_options
@pass_session
def attach(
    session: Session,
    /,
    *,
    instance: str,
    volume_id: uuid.UUID | None,
    attachment: uuid.UUID | None,
    timeout_s: float | None,
    **options: Any,
) -> None:
    """Attaches the volume at SOURCE, to a running machine at once."""
    volume = connection(options, str(volume_id or uuid.uuid4()))
    device = BlockDevice(volume=volume, attachment_id=str(attachment or ""))
    for name in ("device_name", "bus", "device_type", "boot_index"):
        value = options.pop(name)
        if value not in (None, ""):
            setattr(device, name, value)
    request = partial(
        messages.AttachVolumeRequest, device=device, timeout=duration(timeout_s), **options
    )
    change(session, [instance], session.client.volumes.AttachVolume, request, words=_attached)


@noun.command("detach")
@instance_argument
@volume_argument
@attachment_option
@timeout_option("How long the guest has to release it.  [default: 160]")
@click.option(
    "--retry-interval",
    "retry_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How often it is asked again.  [default: 20]",
)
@mutation_options
@pass_session
def detach(
    session: Session,
    /,
    *,
    instance: str,
    volume_id: uuid.UUID,
    attachment: uuid.UUID | None,
    timeout_s: float | None,
    retry_s: float | None,
    **common: Any,
) -> None:
    """Detaches a volume; its data stay."""
    request = partial(
        messages.DetachVolumeRequest,
        volume_id=str(volume_id),
        attachment_id=str(attachment or ""),
        timeout=duration(timeout_s),
        retry_interval=duration(retry_s),
        **common,
    )
    call = session.client.volumes.DetachVolume
    change(session, [instance], call, request, words=_detached)


@noun.command("extend")
@instance_argument
@volume_argument
@click.argument("size_bytes", metavar="SIZE", type=BYTES)
@attachment_option
@mutation_options
@pass_session
def extend(
    session: Session,
    /,
    *,
    instance: str,
    volume_id: uuid.UUID,
    attachment: uuid.UUID | None,
    **options: Any,
) -> None:
    """Shows the guest that a volume has SIZE bytes now, or e.g. 20G; grows files."""
    request = partial(
        messages.ExtendVolumeRequest,
        volume_id=str(volume_id),
        attachment_id=str(attachment or ""),
        **options,
    )
    call = session.client.volumes.ExtendVolume
    change(session, [instance], call, request, words=_extended)


@noun.command("swap")
@instance_argument
@volume_argument
@volume_options
@click.option("--id", "new_id", type=_UUID, required=True, help="UUID of the new volume.")
@click.option("--new-attachment", type=_UUID, help="[default: the new volume's]")
@attachment_option
@click.option("--resize-to", "resize_to_bytes", type=BYTES, default=0, help="Bytes, or e.g. 20G.")
@no_wait_option
@mutation_options
@pass_session
def swap(
    session: Session,
    /,
    *,
    instance: str,
    volume_id: uuid.UUID,
    new_id: uuid.UUID,
    new_attachment: uuid.UUID | None,
    attachment: uuid.UUID | None,
    no_wait: bool,
    **options: Any,
) -> None:
    """Replaces VOLUME by the one at SOURCE while the guest runs."""
    request = partial(
        messages.SwapVolumeRequest,
        old_volume_id=str(volume_id),
        old_attachment_id=str(attachment or ""),
        new_volume=connection(options, str(new_id)),
        new_attachment_id=str(new_attachment or ""),
        **options,
    )
    call = session.client.volumes.SwapVolume
    change_at_length(session, [instance], call, request, no_wait=no_wait, words=_swapped)


@noun.command("snapshot")
@instance_argument
@volume_argument
@click.option("--id", "snapshot_id", type=_UUID, help="Its UUID.  [default: a random one]")
@click.option("--parent", type=_UUID, help="Refuse where another one is the newest.")
@click.option("--overlay", "overlay_file", default="", metavar="NAME", help="Name of the overlay.")
@click.option("--reuse-file", is_flag=True, help="The overlay is there already.")
@click.option("--quiesce", is_flag=True, help="Freeze the guest's filesystems for the cut.")
@attachment_option
@no_wait_option
@mutation_options
@pass_session
def snapshot(
    session: Session,
    /,
    *,
    instance: str,
    volume_id: uuid.UUID,
    snapshot_id: uuid.UUID | None,
    parent: uuid.UUID | None,
    attachment: uuid.UUID | None,
    no_wait: bool,
    **options: Any,
) -> None:
    """Takes a snapshot of a volume that is a file."""
    request = partial(
        messages.CreateVolumeSnapshotRequest,
        volume_id=str(volume_id),
        attachment_id=str(attachment or ""),
        snapshot_id=str(snapshot_id or uuid.uuid4()),
        parent_snapshot_id=str(parent or ""),
        **options,
    )
    call = session.client.volumes.CreateVolumeSnapshot
    change_at_length(session, [instance], call, request, no_wait=no_wait, words=_taken)


@noun.command("delete-snapshot")
@instance_argument
@volume_argument
@click.argument("snapshot_id", metavar="SNAPSHOT", type=_UUID)
@click.option("--merge", type=EnumChoice(messages.SnapshotMerge), help="[default: commit]")
@click.option("--top", "top_file", default="", metavar="NAME", help="File that is merged away.")
@click.option("--base", "base_file", default="", metavar="NAME", help="File it is merged into.")
@click.option(
    "--bandwidth", "bandwidth_bytes_per_s", type=BYTES, default=0, help="Bytes/s at most."
)
@attachment_option
@no_wait_option
@mutation_options
@pass_session
def delete_snapshot(
    session: Session,
    /,
    *,
    instance: str,
    volume_id: uuid.UUID,
    snapshot_id: uuid.UUID,
    merge: messages.SnapshotMerge.ValueType | None,
    attachment: uuid.UUID | None,
    no_wait: bool,
    **options: Any,
) -> None:
    """Deletes a snapshot: merges its overlay while the guest runs."""
    request = partial(
        messages.DeleteVolumeSnapshotRequest,
        volume_id=str(volume_id),
        attachment_id=str(attachment or ""),
        snapshot_id=str(snapshot_id),
        merge=merge or messages.SNAPSHOT_MERGE_UNSPECIFIED,
        **options,
    )
    call = session.client.volumes.DeleteVolumeSnapshot
    change_at_length(session, [instance], call, request, no_wait=no_wait, words=_merged)


@noun.command("connector")
@pass_session
def connector(session: Session, /) -> None:
    """Shows who the host is towards storage."""
    response = session.client.volumes.GetVolumeConnector(messages.GetVolumeConnectorRequest())
    session.output.document(response, lambda: properties(_connector(response.connector)))


@noun.command("names")
@instance_argument
@click.option("--bus", type=EnumChoice(DiskBus), help="Of the disk to come.  [default: virtio]")
@pass_session
def names(session: Session, /, *, instance: str, bus: DiskBus.ValueType | None) -> None:
    """Shows the root disk's name, and the next free one."""
    slot = messages.DiskSlot(bus=bus or DiskBus.DISK_BUS_UNSPECIFIED)
    request = messages.AssignDeviceNamesRequest(
        instance_id=instance_id(session.client, instance), next=slot
    )
    response = session.client.volumes.AssignDeviceNames(request)
    facts = (("root", response.root_device_name), ("next", response.next_device_name))
    session.output.document(response, lambda: properties(facts))


@noun.command("filesystem")
@click.argument("filesystem", metavar="TYPE")
@pass_session
def filesystem(session: Session, /, *, filesystem: str) -> None:
    """Says whether ephemeral disks can have a filesystem of TYPE, e.g. ext4."""
    request = messages.CheckFilesystemSupportRequest(filesystem=filesystem)
    response = session.client.volumes.CheckFilesystemSupport(request)
    answer = "yes" if response.supported else "no"
    all_of_them = ", ".join(response.supported_filesystems)
    session.output.document(response, lambda: f"{answer} (there are: {all_of_them})")


def _listed(disks: Iterable[AttachedDisk]) -> RenderableType:
    columns = (
        Column("VOLUME", whole=True),
        Column("DEVICE", whole=True),
        Column("BUS"),
        Column("FORMAT", wide=True),
        Column("SOURCE"),
    )
    return listing(columns, [_row(disk) for disk in disks])


def _row(disk: AttachedDisk) -> tuple[str, ...]:
    bus, format_ = word(DiskBus, disk.bus), word(DiskFormat, disk.format)
    return disk.volume_id, disk.device_name, bus, format_, disk.source


def _connector(found: messages.VolumeConnector) -> Iterator[tuple[str, str]]:
    yield "hostname", found.hostname
    yield "address", found.ip
    yield "initiator", found.initiator_iqn
    yield "multipath", "yes" if found.multipath else "no"
    yield "NVMe host", found.nvme_host_nqn
    yield "system", " ".join(filter(None, (found.os_type, found.architecture, found.system_id)))


def _attached(response: messages.AttachVolumeResponse) -> str:
    return f"volume {response.disk.volume_id} is {response.disk.device_name}"


def _detached(response: messages.DetachVolumeResponse) -> str:
    return "it was not attached" if response.already_gone else "detached"


def _extended(response: messages.ExtendVolumeResponse) -> str:
    return f"the guest sees {byte_size(response.guest_size_bytes)}"


def _swapped(response: messages.SwapVolumeResponse) -> str:
    disk, size = response.disk, byte_size(response.size_bytes)
    return f"{disk.device_name} is volume {disk.volume_id}, {size}"


def _taken(response: messages.CreateVolumeSnapshotResponse) -> str:
    return f"snapshot {response.snapshot.snapshot_id} of {response.snapshot.base_file}"


def _merged(response: messages.DeleteVolumeSnapshotResponse) -> str:
    if response.already_gone:
        return "there was no such snapshot"
    released = ", ".join(response.released_files)
    return "merged" + (f"; no longer in use: {released}" if released else "")
