"""The making of an instance on the fake: of its disks only the config drive has bytes."""

import shutil
from collections.abc import Callable, Mapping

from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.spec_pb2 import InstanceSpec

from backends.config_drive import config_drive
from backends.errors import ContractError
from backends.fake.features import free_room
from backends.fake.host import FakeHost
from backends.fake.machines import CONFIG_DRIVE
from backends.images import ImageStore
from backends.interfaces.side import InterfaceSide
from backends.plan import InstancePlan
from backends.specification import SpecImages, boot_source_blockers, instance_name
from backends.volumes.spawning import spawn_errors
from backends.volumes.storage import Storage
from backends.work import Undo, Work

BUILTIN_IMAGE = "demo"


class FakeSpawning:
    """Makes instances that are not there yet."""

    def __init__(
        self,
        host: FakeHost,
        images: ImageStore,
        features: Mapping[str, str],
        side: InterfaceSide,
        storage: Storage,
    ) -> None:
        """`features` as in HypervisorFacts."""
        self._host = host
        self._images = images
        self._features = features
        self._side = side
        self._storage = storage

    def spawn(
        self,
        plan: InstancePlan,
        work: Work,
        *,
        told: Callable[[list[ContractError]], list[ContractError]] = list,
    ) -> pb.Instance:
        """Checks a plan, then makes it and starts it; `told` may say blockers otherwise."""
        instance_id, images = plan.instance_id, SpecImages(plan.spec, self._images)
        room = free_room(self._host.instances())
        blockers = [
            *self._image_blockers(plan.spec, images),
            *plan.blockers(self._features, room),
            *spawn_errors(plan, self._storage, self._host.instances()),
        ]
        with self._side.claimed(instance_id, plan.spec.interfaces) as taken:
            work.ready(told([*blockers, *taken]))
            self._make_files(plan, work)
            images.mark_used()
            self.make_instance(plan, work)
        work.commit()
        self._side.book.give_up(instance_id)
        return self._host.get(instance_id)

    def rebuild_blockers(self, plan: InstancePlan, images: SpecImages) -> list[ContractError]:
        """What stands in the way of other disks for an instance that is there."""
        room = free_room(self._host.instances())
        return [*self._image_blockers(plan.spec, images), *plan.disk_blockers(self._features, room)]

    def _image_blockers(self, spec: InstanceSpec, images: SpecImages) -> list[ContractError]:
        """What stands in the way of booting; the built-in image is always there."""
        blockers = [*images.blockers, *boot_source_blockers(spec)]
        if spec.image.image_id != BUILTIN_IMAGE:
            return blockers
        return [blocker for blocker in blockers if blocker.field != "spec.image.image_id"]

    def write_drive(self, plan: InstancePlan) -> None:
        """Writes the config drive anew, where there is to be one: its content can be seen here."""
        path = self._host.instance_folder(plan.instance_id) / CONFIG_DRIVE
        path.unlink(missing_ok=True)
        drive = config_drive(plan)
        if drive is not None:
            drive.write(path)

    def make_instance(self, plan: InstancePlan, work: Work, *, power_on: bool = True) -> None:
        """Makes an instance whose files are there, and starts it if it is to run."""
        instance_id, interfaces = plan.instance_id, plan.spec.interfaces
        work.phase("network", percent=50)
        if interfaces:
            work.step("network", Undo("take_away", {"instance_id": instance_id}))
            self._side.put(instance_id, interfaces)
        work.phase("define", percent=60, message=instance_name(instance_id, plan.spec))
        work.step("define", Undo("undefine", {"instance_id": instance_id}))
        self._host.define(plan)
        if not power_on:
            return
        work.phase("start", percent=80)
        work.step("start", Undo("stop", {"instance_id": instance_id}))
        self._host.start(instance_id)

    def _make_files(self, plan: InstancePlan, work: Work) -> None:
        work.phase("image", percent=5, message=plan.spec.image.image_id)
        work.phase("disks", percent=10)
        work.step("files", Undo("remove_files", {"instance_id": plan.instance_id}))
        folder = self._host.instance_folder(plan.instance_id)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.write_drive(plan)
