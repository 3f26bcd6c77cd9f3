"""Spawn, destroy and what is left on the host, on the fake."""

import shutil

import structlog
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import InstanceFiles, Lifecycle
from backends.errors import ContractError, InstanceNotFoundError, WrongStateError
from backends.fake.faults import FOREIGN_LABEL
from backends.fake.host import FakeHost
from backends.fake.spawning import FakeSpawning
from backends.interfaces.side import InterfaceSide
from backends.migration.book import MigrationBook
from backends.plan import InstancePlan
from backends.specification import existing
from backends.work import Work

log = structlog.get_logger()


class FakeLifecycle(Lifecycle):
    """Beginning and end of instances."""

    def __init__(
        self,
        host: FakeHost,
        spawning: FakeSpawning,
        side: InterfaceSide,
        migrations: MigrationBook,
    ) -> None:
        self._migrations = migrations
        self._host = host
        self._spawning = spawning
        self._side = side
        self.undo = {
            "remove_files": lambda instance_id: shutil.rmtree(
                host.instance_folder(instance_id), ignore_errors=True
            ),
            "undefine": host.undefine,
            "stop": lambda instance_id: host.stop(instance_id, "failed"),
            "take_away": side.take_away,
        }

    def spawn_instance(self, request: pb.SpawnInstanceRequest, work: Work) -> pb.Instance:
        """See Lifecycle."""
        instance_id, spec = request.instance_id, request.spec
        same = existing(instance_id, spec, self._host.instances())
        if same is not None:
            work.ready()
            return same
        faulty = self._host.faulty(work, "spawn_instance", pb.Instance(labels=spec.labels))
        made = self._spawning.spawn(InstancePlan(instance_id, spec), faulty)
        if FOREIGN_LABEL in spec.labels:
            self._host.disown(instance_id)
        return self._host.find(instance_id) or made

    def get_instance(self, request: pb.GetInstanceRequest) -> pb.GetInstanceResponse:
        """See Lifecycle."""
        instance = self._host.find(request.instance_id)
        if instance is None:
            raise InstanceNotFoundError(request.instance_id)
        for sample in self._host.samples():
            if sample.instance_id == request.instance_id:
                instance.cpu_time_ns = sample.cpu_time_ns
                instance.cpu_time_at.GetCurrentTime()
        return pb.GetInstanceResponse(instance=instance)

    def destroy_instance(
        self, request: pb.DestroyInstanceRequest, work: Work
    ) -> pb.DestroyInstanceResponse:
        """See Lifecycle."""
        instance = self._host.find(request.instance_id)
        faulty = self._host.faulty(work, "destroy_instance", instance)
        faulty.ready()
        if instance is None:
            log.warning("instance to destroy is not on this host", instance_id=request.instance_id)
        faulty.step("stop")
        self._host.stop(request.instance_id, "destroyed")
        faulty.step("undefine")
        self._host.undefine(request.instance_id)
        self._migrations.destroyed(request.instance_id)
        faulty.step("network")
        self._side.give_up(request.instance_id)
        faulty.step("files")
        if request.destroy_disks:
            _remove(self._host, request.instance_id)
        return pb.DestroyInstanceResponse(already_gone=instance is None)


class FakeInstanceFiles(InstanceFiles):
    """Folders that instances leave behind, and interfaces."""

    def __init__(self, host: FakeHost, side: InterfaceSide) -> None:
        self._host = host
        self._side = side

    def cleanup_instance(
        self, request: pb.CleanupInstanceRequest, work: Work
    ) -> pb.CleanupInstanceResponse:
        """See InstanceFiles."""
        instance = self._host.find(request.instance_id)
        faulty = self._host.faulty(work, "cleanup_instance", instance)
        faulty.ready(_not_running(instance))
        faulty.step("files")
        removed: list[str] = []
        if instance is None and request.destroy_vifs:
            removed += self._side.give_up(request.instance_id)
        if instance is None and request.destroy_disks:
            removed += _remove(self._host, request.instance_id)
        return pb.CleanupInstanceResponse(removed=removed)

    def delete_instance_files(
        self, request: pb.DeleteInstanceFilesRequest, work: Work
    ) -> pb.DeleteInstanceFilesResponse:
        """See InstanceFiles."""
        instance = self._host.find(request.instance_id)
        faulty = self._host.faulty(work, "delete_instance_files", instance)
        faulty.ready(_not_defined(instance))
        faulty.step("files")
        _remove(self._host, request.instance_id)
        return pb.DeleteInstanceFilesResponse(gone=True)

    def check_instance_on_disk(
        self, request: pb.CheckInstanceOnDiskRequest
    ) -> pb.CheckInstanceOnDiskResponse:
        """See InstanceFiles."""
        folder = self._host.instance_folder(request.instance_id)
        return pb.CheckInstanceOnDiskResponse(on_disk=folder.exists())


def _remove(host: FakeHost, instance_id: str) -> list[str]:
    folder = host.instance_folder(instance_id)
    if not folder.exists():
        return []
    shutil.rmtree(folder, ignore_errors=True)
    return [str(folder)]


def _not_running(instance: pb.Instance | None) -> list[ContractError]:
    if instance is None or instance.power_state == PowerState.POWER_STATE_SHUTDOWN:
        return []
    return [WrongStateError("the instance is running")]


def _not_defined(instance: pb.Instance | None) -> list[ContractError]:
    if instance is None:
        return []
    return [WrongStateError("the instance is still defined here")]
