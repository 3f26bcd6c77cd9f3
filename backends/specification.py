"""What every backend asks of a specification in the same way."""

from collections.abc import Iterable, Sequence

from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import InstanceSpec

from backends.errors import (
    AlreadyExistsError,
    ContractError,
    InstanceNotFoundError,
    InvalidArgumentError,
    WrongStateError,
)
from backends.images import ImageStore, StoredImage
from backends.redaction import redacted

BYTES_PER_GIB = 1 << 30
MIB_PER_GIB = 1024


def instance_name(instance_id: str, spec: InstanceSpec) -> str:
    """The instance's name: as given, or made from its id."""
    return spec.name or f"instance-{instance_id}"


def same_specification(one: InstanceSpec, other: InstanceSpec) -> bool:
    """Whether two are the same in all fields but the secret ones."""
    return redacted(one).SerializeToString(deterministic=True) == redacted(other).SerializeToString(
        deterministic=True
    )


def existing(
    instance_id: str, spec: InstanceSpec, instances: Iterable[Instance]
) -> Instance | None:
    """The instance that a repeated spawn asks for again, if there is one.

    Raises AlreadyExistsError where its id or name is taken by another one.
    """
    name = instance_name(instance_id, spec)
    for instance in instances:
        if instance.instance_id == instance_id:
            if instance.managed and same_specification(instance.spec, spec):
                return instance
            raise AlreadyExistsError(
                f"instance {instance_id} exists with another specification",
                reason="SPEC_DIFFERS",
                metadata={"instance_id": instance_id},
            )
        if instance.name == name:
            raise AlreadyExistsError(
                f"the name {name} is taken by instance {instance.instance_id}",
                reason="NAME_TAKEN",
                field="spec.name",
                metadata={"instance_id": instance.instance_id},
            )
    return None


def require_managed(instance: Instance | None, instance_id: str) -> Instance:
    """The instance, where the service may change it.

    Raises InstanceNotFoundError, or WrongStateError for one that it did not make.
    """
    if instance is None:
        raise InstanceNotFoundError(instance_id)
    if not instance.managed:
        raise WrongStateError(
            f"instance {instance_id} was not made by this service: ImportInstance adopts it",
            reason="FOREIGN_INSTANCE",
        )
    return instance


class SpecImages:
    """Images of a specification, and what stands in the way of using them."""

    def __init__(self, spec: InstanceSpec, store: ImageStore) -> None:
        self.root: StoredImage | None = None
        self.kernel: StoredImage | None = None
        self.ramdisk: StoredImage | None = None
        self.blockers: list[ContractError] = []
        source = spec.image
        for attribute, image_id, find in (
            ("root", source.image_id, store.find_disk),
            ("kernel", source.kernel_image_id, store.find),
            ("ramdisk", source.ramdisk_image_id, store.find),
        ):
            field = f"spec.image.{'' if attribute == 'root' else attribute + '_'}image_id"
            if not image_id:
                continue
            try:
                setattr(self, attribute, find(image_id, field=field))
            except ContractError as error:
                self.blockers.append(error)
        self._check_root_size(spec)

    @property
    def beside_root(self) -> list[ContractError]:
        """Blockers for an instance whose root disk is there already."""
        root = ("spec.image.image_id", "spec.flavor.root_disk_gib")
        return [error for error in self.blockers if error.field not in root]

    def mark_used(self) -> None:
        """Notes that an instance is made from them now."""
        for image in (self.root, self.kernel, self.ramdisk):
            if image is not None:
                image.mark_used()

    def _check_root_size(self, spec: InstanceSpec) -> None:
        wanted = spec.flavor.root_disk_gib * BYTES_PER_GIB
        if self.root is not None and wanted and wanted < self.root.virtual_size_bytes:
            self.blockers.append(
                InvalidArgumentError(
                    f"root disk of {spec.flavor.root_disk_gib} GiB is smaller than the image"
                    f" ({self.root.virtual_size_bytes} bytes)",
                    field="spec.flavor.root_disk_gib",
                    reason="ROOT_DISK_TOO_SMALL",
                )
            )


def boot_source_blockers(spec: InstanceSpec) -> Sequence[ContractError]:
    """That there is something to boot from."""
    bootable = any(device.HasField("boot_index") for device in spec.block_devices)
    if spec.image.image_id or spec.image.kernel_image_id or bootable:
        return ()
    return (
        InvalidArgumentError(
            "nothing to boot from: an image, a kernel or a block device with a boot_index",
            field="spec.image.image_id",
            reason="NO_BOOT_SOURCE",
        ),
    )
