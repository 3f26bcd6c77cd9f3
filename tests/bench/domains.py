"""Domains as the daemon would define them, for libvirt itself."""

import shutil
from pathlib import Path

from virtrpc.v1.spec_pb2 import InstanceSpec

from backends.images import ImageStore, StoredImage
from backends.libvirt.blueprint import Place, domain_xml
from backends.libvirt.xml.metadata import InstanceMetadata
from backends.specification import SpecImages


def xml_of(
    instance_id: str, spec: InstanceSpec, images: SpecImages, *, root_disk: Path, console: Path
) -> str:
    """The domain XML of an emulated guest."""
    own = InstanceMetadata(spec=spec)
    own.created_at.GetCurrentTime()
    place = Place(
        virt_type="qemu",
        emulator=shutil.which("qemu-system-x86_64"),
        root_disk=root_disk,
        kernel=images.kernel,
        ramdisk=images.ramdisk,
        console_log=console,
    )
    return domain_xml(instance_id, own, place)


def images_of(spec: InstanceSpec, folder: Path) -> tuple[SpecImages, StoredImage]:
    """The images of a specification, and that of its root disk."""
    images = SpecImages(spec, ImageStore(folder))
    assert images.root is not None, images.blockers
    return images, images.root
