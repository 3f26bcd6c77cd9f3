"""Volumes of a guest that comes from another host: looked for where it has them, or where
the caller says that this host has them.

That a path or an address means the same bytes on two hosts is tested, as far as it can be:
a file has to be held by the guest's hypervisor, and what only one host can mean is refused.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.spec_pb2 import InstanceSpec, VolumeConnection

from backends.errors import ContractError, WrongStateError
from backends.migration.cold_volumes import untold
from backends.plan.needs import unmet, volume_needs
from backends.redaction import redacted
from backends.volumes.attached import source_of
from backends.volumes.attaching import users_errors
from backends.volumes.source_uri import connection_of
from backends.volumes.storage import Storage

_TIMEOUT_S = 30.0
_NAMED_BY_WHAT_THEY_ARE = ("/dev/disk/by-id/", "/dev/mapper/mpath")


class VolumeKeys(Protocol):
    """Where a host keeps the keys and passwords of volumes."""

    def keep(self, instance_id: str, attachment_id: str, volume: VolumeConnection) -> None:
        """Takes those of a volume; nothing where it has none."""

    def forget(self, instance_id: str) -> None:
        """Removes all of an instance. Idempotent."""


class ArrivingVolumes:
    """The volumes of instances that come here, and of those that have gone."""

    def __init__(
        self,
        storage: Storage,
        *,
        features: Callable[[], Mapping[str, str]],
        instances: Callable[[], Iterable[Instance]],
        keys: VolumeKeys,
        is_held: Callable[[Path], bool],
    ) -> None:
        """`instances` are all of the host; `is_held`: whether a hypervisor has a file open."""
        self._storage = storage
        self._features = features
        self._instances = instances
        self._keys = keys
        self._is_held = is_held

    def source_errors(
        self, source: pb.MigrationSource, instance_id: str, *, live: bool
    ) -> Iterator[ContractError]:
        """What keeps the volumes of a source from being connected as they are there."""
        for index, disk in enumerate(source.disks):
            field = f"source.disks[{index}]"
            volume = _as_at_the_source(disk)
            if volume is not None and _means_one_host(volume):
                why = f"{disk.destination_source} is something else on each host"
                yield _not_shared(why, field)
            elif volume is not None and not (disk.needs_secret and volume.HasField("iscsi")):
                # Of a server that wants a password nothing is known before there is one.
                yield from self._errors(disk, volume, instance_id, field, live=live)

    def errors(self, data: pb.MigrationData, spec: InstanceSpec) -> Iterator[ContractError]:
        """What keeps them from being connected as a specification, or else the source, says."""
        given, live = _volumes_of(spec), data.kind == pb.MIGRATION_KIND_LIVE
        if not live:
            yield from untold(data.disks, spec, "data.disks")
        for index, disk in enumerate(data.disks):
            if not disk.volume_id:
                continue
            field = f"data.disks[{index}]"
            volume = given.get(disk.volume_id) or _as_at_the_source(disk)
            if disk.needs_secret and (volume is None or redacted(volume) == volume):
                yield secret_needed(disk, field)
            elif volume is not None:
                yield from self._errors(disk, volume, data.instance_id, field, live=live)

    def connect(self, data: pb.MigrationData, spec: InstanceSpec) -> None:
        """Keeps their keys, and writes into the data where they are here."""
        given = _volumes_of(spec)
        for disk in data.disks:
            volume = given.get(disk.volume_id) if disk.volume_id else None
            if volume is not None:
                self._keys.keep(data.instance_id, disk.attachment_id or disk.volume_id, volume)
                disk.destination_source = source_of(self._storage.located(volume))

    def disconnect(self, instance_id: str) -> None:
        """Forgets their keys. Idempotent."""
        self._keys.forget(instance_id)

    def _errors(
        self,
        disk: pb.MigrationDisk,
        volume: VolumeConnection,
        instance_id: str,
        field: str,
        *,
        live: bool,
    ) -> list[ContractError]:
        missing = unmet(tuple(volume_needs(volume, field)), self._features())
        if missing:
            return missing
        asked = AttachedDisk(volume_id=disk.volume_id, multi_attach=disk.multi_attach)
        used = users_errors(asked, self._instances(), but=instance_id)
        _, errors = self._storage.looked_at(volume, field=field, timeout_s=_TIMEOUT_S)
        path = Path(self._storage.located(volume).local_file.path)
        if live and path.name and not errors and not self._is_held(path):
            why = f"nobody has {path} open: it is another file than at the source"
            errors = [_not_shared(why, field)]
        return [*used, *errors]


def secret_needed(disk: pb.MigrationDisk, field: str) -> ContractError:
    """A key or password is missing, which nobody but the caller can give."""
    why = f"PrepareDestination must be given the key or password of volume {disk.volume_id}"
    return WrongStateError(why, reason="VOLUME_SECRET_NEEDED", field=field)


def as_they_are(spec: InstanceSpec, disks: Iterable[pb.MigrationDisk]) -> InstanceSpec:
    """A specification whose volumes are where the instance has them now, without secrets."""
    now = redacted(spec)
    volumes = {disk.volume_id: _as_at_the_source(disk) for disk in disks if disk.volume_id}
    for device in now.block_devices:
        found = volumes.get(device.volume.volume_id) if device.HasField("volume") else None
        if found is not None:
            kind = found.WhichOneof("source")
            assert kind is not None  # noqa: S101
            getattr(device.volume, kind).CopyFrom(getattr(found, kind))
    return now


def _volumes_of(spec: InstanceSpec) -> dict[str, VolumeConnection]:
    devices = (device.volume for device in spec.block_devices if device.HasField("volume"))
    return {volume.volume_id: volume for volume in devices}


def _as_at_the_source(disk: pb.MigrationDisk) -> VolumeConnection | None:
    if not disk.volume_id:
        return None
    return connection_of(disk.destination_source, volume_id=disk.volume_id, file_format=disk.format)


def _means_one_host(volume: VolumeConnection) -> bool:
    """Whether each host would reach something of its own by it."""
    path = volume.local_block.path
    if path:
        return not path.startswith(_NAMED_BY_WHAT_THEY_ARE)
    return bool(volume.nbd.socket_path) or _is_loopback(volume.nbd.host or volume.iscsi.host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _not_shared(why: str, field: str) -> ContractError:
    return WrongStateError(why, reason="VOLUME_NOT_SHARED", field=field)
