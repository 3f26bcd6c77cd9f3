"""Snapshots on the fake, whose disks have no bytes: images of empty disks."""

from pathlib import Path

from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Snapshots
from backends.fake.host import FakeHost
from backends.images import ImageStore
from backends.images.incoming import telling_disk_errors
from backends.plan.disks import BYTES_PER_GIB
from backends.qcow2 import empty_disk
from backends.snapshots import SnapshotImages, is_raw, state_blockers, tell_copied
from backends.work import Undo, Work

_ON = (PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED)


class FakeSnapshots(Snapshots):
    """Images made from the root disks of instances."""

    def __init__(self, host: FakeHost, images: ImageStore) -> None:
        self._host = host
        self._store = images
        self._images = SnapshotImages(images)

    def snapshot_instance(
        self, request: pb.SnapshotInstanceRequest, work: Work
    ) -> pb.SnapshotInstanceResponse:
        """See Snapshots."""
        finished = self._images.finished(request, work)
        if finished is not None:
            return finished
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "snapshot_instance", instance)
        size_bytes = self._size_bytes(instance)
        live = instance.power_state in _ON
        faulty.ready(
            [
                *state_blockers(request, instance),
                *self._images.blockers(request, virtual_size_bytes=size_bytes, least_bytes=0),
            ]
        )

        def copy(target: Path) -> None:
            faulty.step("copy")
            if request.quiesce and live:
                faulty.phase("quiesce", percent=2)
                faulty.step("freeze", Undo("thaw", {"instance_id": request.instance_id}))
            tell_copied(faulty, 0, size_bytes)
            _write(target, size_bytes, raw=is_raw(request))

        return self._images.take(request, instance, copy, faulty, live=live)

    def _size_bytes(self, instance: Instance) -> int:
        spec = instance.spec
        image = self._store.get(spec.image.image_id)
        of_image = BYTES_PER_GIB if image is None else image.virtual_size_bytes
        return spec.flavor.root_disk_gib * BYTES_PER_GIB or of_image


def _write(path: Path, size_bytes: int, *, raw: bool) -> None:
    with telling_disk_errors(), path.open("xb") as file:
        if raw:
            file.truncate(size_bytes)
        else:
            file.write(empty_disk(size_bytes))
