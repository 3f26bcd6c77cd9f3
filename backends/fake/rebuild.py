"""Rebuild on the fake: the same instance with other disks, and what it was kept until it runs."""

from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Rebuild
from backends.fake.host import FakeHost
from backends.fake.machines import CONFIG_DRIVE, new_instance
from backends.fake.spawning import FakeSpawning
from backends.images import ImageStore
from backends.plan import InstancePlan
from backends.rebuild import (
    as_asked,
    disk_blockers,
    rebuilt_spec,
    request_blockers,
    volume_image,
)
from backends.rescue import reboot_blockers
from backends.specification import SpecImages, existing
from backends.volumes.attached import VOLUME
from backends.work import Undo, Work

_ON = (PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED)


class FakeRebuild(Rebuild):
    """Makes instances anew."""

    def __init__(self, host: FakeHost, images: ImageStore, spawning: FakeSpawning) -> None:
        self._host = host
        self._images = images
        self._spawning = spawning
        self._before: dict[str, tuple[Instance, bytes | None]] = {}
        self.undo = {"put_back": self._put_back}
        """Undo actions, which take an instance's id."""

    def rebuild_instance(self, request: pb.RebuildInstanceRequest, work: Work) -> Instance:
        """See Rebuild."""
        if request.recreate:
            return self._recreate(request, work)
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "rebuild_instance", instance)
        plan = InstancePlan(request.instance_id, rebuilt_spec(instance.spec, request))
        images = SpecImages(plan.spec, self._images)
        faulty.ready(
            [
                *request_blockers(request),
                *disk_blockers(request, plan, instance),
                *volume_image(request, self._images)[1],
                *as_asked(self._spawning.rebuild_blockers(plan, images), request),
                *reboot_blockers(instance),
            ]
        )
        images.mark_used()
        self._rebuild(plan, faulty, instance)
        self._before.pop(request.instance_id, None)
        return self._host.get(request.instance_id)

    def _recreate(self, request: pb.RebuildInstanceRequest, work: Work) -> Instance:
        spec = rebuilt_spec(request.spec, request)
        same = existing(request.instance_id, spec, self._host.instances())
        if same is not None:
            work.ready()
            return same
        faulty = self._host.faulty(work, "rebuild_instance", Instance(labels=spec.labels))
        return self._spawning.spawn(
            InstancePlan(request.instance_id, spec),
            faulty,
            told=lambda errors: [
                *request_blockers(request),
                *as_asked(errors, request),
            ],
        )

    def _rebuild(self, plan: InstancePlan, work: Work, instance: Instance) -> None:
        instance_id = plan.instance_id
        undo = {"instance_id": instance_id}
        work.phase("stop", percent=5)
        work.step("stop", Undo("power_on", undo) if instance.power_state in _ON else None)
        self._host.stop(instance_id, "destroyed")
        work.phase("image", percent=15, message=plan.spec.image.image_id)
        work.phase("disks", percent=20)
        work.step("disks", Undo("put_back", undo))
        self._remember(instance_id)
        self._spawning.write_drive(plan)
        work.phase("define", percent=60)
        work.step("define")
        self._define(plan)
        work.phase("start", percent=80)
        work.step("start", Undo("stop", undo))
        self._host.start(instance_id)
        work.commit()

    def _define(self, plan: InstancePlan) -> None:
        fresh = new_instance(plan, self._host.instance_folder(plan.instance_id))
        with self._host.edit(plan.instance_id) as edited:
            own = [disk for disk in fresh.persistent.disks if disk.role != VOLUME]
            volumes = [disk for disk in edited.persistent.disks if disk.role == VOLUME]
            disks = pb.MachineState(disks=[*own, *volumes]).disks
            edited.spec.CopyFrom(fresh.spec)
            del edited.persistent.disks[:]
            edited.persistent.disks.extend(disks)

    def _remember(self, instance_id: str) -> None:
        drive = self._host.instance_folder(instance_id) / CONFIG_DRIVE
        content = drive.read_bytes() if drive.exists() else None
        self._before[instance_id] = (self._host.get(instance_id), content)

    def _put_back(self, instance_id: str) -> None:
        """Undo: the instance that was, and off; nothing where none was remembered."""
        before, content = self._before.pop(instance_id, (None, None))
        if before is None:
            return
        with self._host.edit(instance_id) as edited:
            edited.spec.CopyFrom(before.spec)
            edited.persistent.CopyFrom(before.persistent)
        drive = self._host.instance_folder(instance_id) / CONFIG_DRIVE
        drive.unlink(missing_ok=True)
        if content is not None:
            drive.write_bytes(content)
            drive.chmod(0o600)
