"""Snapshots of instances, as far as they are alike on every backend: all but the copying.

image ──▶ copy ──▶ verify ──▶ inspect ──▶ store
  ╰─── the backend's own ─╯    (see backends.images.arrivals)
"""

from collections.abc import Callable
from pathlib import Path

from virtrpc.v1 import image_pb2, spec_pb2
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk, Instance
from virtrpc.v1.types_pb2 import PowerState

from backends.errors import ContractError, WrongStateError
from backends.images import ImageStore
from backends.images.arrivals import Arrival, Arrivals
from backends.images.refusals import image_exists, no_room, too_large
from backends.power_states import power_blockers
from backends.work import Work

_LIVE = "snapshot_live"
_COPY_FROM_PERCENT, _COPY_TO_PERCENT = 5, 90
_FREEZABLE = (
    PowerState.POWER_STATE_RUNNING,
    PowerState.POWER_STATE_SHUTDOWN,
    PowerState.POWER_STATE_CRASHED,
)


class SnapshotImages:
    """Makes images of one store from disks of instances."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._arrivals = Arrivals(store)

    def finished(
        self, request: pb.SnapshotInstanceRequest, work: Work
    ) -> pb.SnapshotInstanceResponse | None:
        """The end of a snapshot that is past its point of no return; None where it is not."""
        image = self._arrivals.finished(request.image_id, work)
        return None if image is None else _response(image)

    def blockers(
        self, request: pb.SnapshotInstanceRequest, *, virtual_size_bytes: int, least_bytes: int
    ) -> list[ContractError]:
        """What stands in the way in the store, for a disk that takes so much of it at least."""
        limits = self._store.policy.limits_of(image_pb2.ImageDeclaration())
        blockers: list[ContractError] = []
        if self._store.exists(request.image_id):
            blockers.append(image_exists(request.image_id))
        if virtual_size_bytes > limits.virtual_size_bytes:
            blockers.append(too_large("disk", limits.virtual_size_bytes))
        if is_raw(request) and virtual_size_bytes > limits.size_bytes:
            blockers.append(too_large("file", limits.size_bytes))
        if least_bytes > self._store.usage().available_bytes:
            blockers.append(no_room())
        return blockers

    def take(
        self,
        request: pb.SnapshotInstanceRequest,
        instance: Instance,
        copy: Callable[[Path], None],
        work: Work,
        *,
        live: bool,
    ) -> pb.SnapshotInstanceResponse:
        """Makes the image: `copy` writes its file as a new one. Blocks; `work` is ready."""
        copy(self._arrivals.expect(work))
        return _response(self._arrivals.take_written(self._arrival(request, instance, live), work))

    def _arrival(
        self, request: pb.SnapshotInstanceRequest, instance: Instance, live: bool
    ) -> Arrival:
        base_id = instance.spec.image.image_id
        base = self._store.get(base_id)
        inherited = {} if base is None else dict(base.properties)
        own = {
            "image_type": "snapshot",
            "instance_uuid": instance.instance_id,
            "base_image_ref": base_id,
            _LIVE: str(live).lower(),
        }
        return Arrival(
            image_id=request.image_id,
            declared=image_pb2.ImageDeclaration(
                format=request.format or spec_pb2.DISK_FORMAT_QCOW2,
                properties={**inherited, **own},
            ),
            origin=image_pb2.IMAGE_ORIGIN_SNAPSHOT,
            source=instance.instance_id,
        )


def is_raw(request: pb.SnapshotInstanceRequest) -> bool:
    """Whether the image is to be a raw one."""
    return request.format == spec_pb2.DISK_FORMAT_RAW


def root_disk(instance: Instance) -> AttachedDisk | None:
    """The disk that is copied."""
    return next((disk for disk in instance.persistent.disks if disk.role == "root"), None)


def state_blockers(request: pb.SnapshotInstanceRequest, instance: Instance) -> list[ContractError]:
    """What stands in the way in the instance."""
    blockers: list[ContractError] = []
    if root_disk(instance) is None:
        why = "the instance has no root disk of its own"
        blockers.append(WrongStateError(why, reason="NO_ROOT_DISK"))
    if request.quiesce:
        blockers.extend(power_blockers(instance, *_FREEZABLE))
    return blockers


def tell_copied(work: Work, copied_bytes: int, of_bytes: int) -> None:
    """Tells how far the copying has come; stops it where it was cancelled."""
    share = min(copied_bytes / of_bytes, 1.0) if of_bytes else 0.0
    percent = _COPY_FROM_PERCENT + int(share * (_COPY_TO_PERCENT - _COPY_FROM_PERCENT))
    work.phase("copy", percent=percent, message=f"{copied_bytes} of {of_bytes} bytes")
    work.checkpoint()


def _response(image: image_pb2.Image) -> pb.SnapshotInstanceResponse:
    return pb.SnapshotInstanceResponse(
        image_id=image.image_id,
        size_bytes=image.size_bytes,
        checksum=image.checksum,
        live=image.properties.get(_LIVE) == "true",
    )
