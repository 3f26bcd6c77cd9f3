"""Which instances use which images: by the disks that they have, not by what was asked for."""

import glob
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import DiskFormat, InstanceSpec

from backends.images.inspection import open_regular
from backends.images.store import ImageStore
from backends.qcow2 import read_header

_LONGEST_CHAIN = 64


class ImageUsers:
    """Finds the users of a store's images."""

    def __init__(self, store: ImageStore, instance_folders: Path | None = None) -> None:
        """`instance_folders` has a folder for each instance id, with its disks."""
        self._store = store
        self._instance_folders = instance_folders

    def by_image(self, instances: Iterable[Instance]) -> Mapping[str, set[str]]:
        """Ids of the instances that use an image, by the image's id.

        Counted are disks of known instances with all that they are based on, disks in the
        folders of instances (of one that is being made, or was destroyed without its disks),
        and what instances boot from.
        """
        users: dict[str, set[str]] = {}
        for instance_id, image_id in self._uses(instances):
            users.setdefault(image_id, set()).add(instance_id)
        return users

    def _uses(self, instances: Iterable[Instance]) -> Iterator[tuple[str, str]]:
        ids_by_path = self._store.paths()
        for instance in instances:
            for image_id in _named(instance.spec):
                yield instance.instance_id, image_id
            for disk in (*instance.persistent.disks, *instance.effective.disks):
                follow = disk.format == DiskFormat.DISK_FORMAT_QCOW2
                for path in _chain(Path(disk.source), follow=follow):
                    if path in ids_by_path:
                        yield instance.instance_id, ids_by_path[path]
        for instance_id, disk_path in self._lingering():
            for path in _chain(disk_path, follow=True):
                if path in ids_by_path:
                    yield instance_id, ids_by_path[path]

    def _lingering(self) -> Iterator[tuple[str, Path]]:
        """Disks in folders of instances, those among them that may be put back."""
        folders = self._instance_folders
        if folders is not None:
            # Unlike Path.glob it bears folders that go meanwhile; hidden ones are looked into too.
            pattern = f"{glob.escape(str(folders))}/*/**/*.qcow2"
            found = glob.iglob(pattern, recursive=True, include_hidden=True)  # noqa: PTH207
            for path in map(Path, found):
                yield path.relative_to(folders).parts[0], path


def _named(spec: InstanceSpec) -> Iterator[str]:
    source = spec.image
    yield from filter(None, (source.image_id, source.kernel_image_id, source.ramdisk_image_id))


def _chain(path: Path, *, follow: bool) -> Iterator[Path]:
    """A disk's file and what it is based on; as far as it can be read."""
    for _ in range(_LONGEST_CHAIN):
        yield path
        backing = _backing(path) if follow else None
        if backing is None:
            return
        path = backing


def _backing(path: Path) -> Path | None:
    try:
        with open_regular(path) as file:
            header = read_header(file)
    except (OSError, ValueError):
        return None
    return path.parent / header.backing_file if header and header.backing_file else None
