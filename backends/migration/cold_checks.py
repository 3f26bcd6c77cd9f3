"""Can an instance leave this host while it is off, or become larger where it is?"""

from collections.abc import Iterator

from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import Flavor, InstanceSpec

from backends.errors import ContractError
from backends.migration import checks, resize
from backends.migration.cold_driver import ColdDriver
from backends.migration.cold_volumes import untold, with_volumes
from backends.migration.driver import MigrationDriver
from backends.migration.source_checks import SourceChecks, is_same_host
from backends.migration.state_files import untaken
from backends.migration.volumes import secret_needed
from backends.plan import InstancePlan
from backends.shares import share_not_migrated

Found = tuple[list[ContractError], pb.MigrationData]


class ColdChecks:
    """What the source looks at."""

    def __init__(
        self, driver: MigrationDriver, cold: ColdDriver, checks_here: SourceChecks
    ) -> None:
        self._driver = driver
        self._cold = cold
        self._checks = checks_here

    def source(self, instance: Instance, spec: InstanceSpec) -> pb.MigrationSource:
        """What a destination is told of an instance that is to be as `spec` says."""
        source = self._driver.source(instance)
        source.flavor.CopyFrom(spec.flavor)
        source.disks.extend(self._cold.state(instance))
        source.shares.extend(instance.shares)
        source.created_at.CopyFrom(instance.created_at)
        source.metadata.update(instance.metadata)
        return source

    def in_place(self, instance: Instance, spec: InstanceSpec, source: pb.MigrationSource) -> Found:
        """Everything in the way on one host, and the data for its second half."""
        plan = InstancePlan(instance.instance_id, spec)
        errors = [
            *self._of_instance(instance, spec, source),
            *checks.rescue_blockers(instance),
            *self._cold.resize_blockers(instance, plan),
        ]
        data = pb.MigrationData(
            instance_id=instance.instance_id,
            kind=pb.MIGRATION_KIND_COLD,
            source=source,
            disks=source.disks,
            interfaces=source.interfaces,
            prepared=True,
        )
        return errors, data

    def leaving_spec(self, instance: Instance, flavor: Flavor) -> InstanceSpec:
        """As what it is made anew on another host: with the volumes that it has by now."""
        devices = self._cold.volumes(instance.instance_id)
        return resize.resized(with_volumes(instance.instance_id, instance.spec, devices), flavor)

    def leaving(
        self, instance: Instance, spec: InstanceSpec, source: pb.MigrationSource
    ) -> list[ContractError]:
        """What of the instance itself is in the way of its going."""
        return [
            *self._of_instance(instance, spec, source),
            *checks.bound_blockers(instance),
            *self._cold.unmoved(instance),
        ]

    def prepared(self, data: pb.MigrationData, source: pb.MigrationSource) -> list[ContractError]:
        """What of the instance somebody else has not prepared the destination for."""
        shares = [share for share in source.shares if share not in data.source.shares]
        why = "the destination was not told of it"
        return [
            *untaken(source, data.disks),
            *(share_not_migrated(share, why, field="data.source.shares") for share in shares),
        ]

    def unprepared(self, spec: InstanceSpec, source: pb.MigrationSource) -> list[ContractError]:
        """What is in the way as long as nobody else has prepared the destination for it."""
        keyless = [
            secret_needed(disk, f"source.disks[{index}]")
            for index, disk in enumerate(source.disks)
            if disk.needs_secret
        ]
        return [*untold(source.disks, spec, "source.disks"), *keyless]

    def between(self, request: pb.CheckSourceRequest, instance: Instance) -> Found:
        """See MigrationService.CheckSource, of a cold one."""
        flavor = request.flavor if request.HasField("flavor") else instance.spec.flavor
        spec = self.leaving_spec(instance, flavor)
        source = self.source(instance, spec)
        blockers, data = self._checks.check_cold(request, source)
        data.resize = flavor != instance.spec.flavor
        if is_same_host(blockers):
            return blockers, data
        return [*self.leaving(instance, spec, source), *blockers], data

    def _of_instance(
        self, instance: Instance, spec: InstanceSpec, source: pb.MigrationSource
    ) -> Iterator[ContractError]:
        yield from self._checks.pending(instance)
        yield from checks.off_blockers(instance)
        old, new = (InstancePlan(instance.instance_id, one) for one in (instance.spec, spec))
        if spec.flavor != instance.spec.flavor:
            sizes = {disk.device_name: disk.virtual_size_bytes for disk in source.disks}
            yield from resize.resize_blockers(old, new, sizes)
        else:
            yield from resize.name_blockers(old, new)
