"""Rescue on the fake: the same instance with another list of disks."""

from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Rescue
from backends.fake.host import FakeHost
from backends.fake.machines import CONFIG_DRIVE
from backends.fake.rescue_disks import in_rescue, out_of_rescue
from backends.fake.spawning import BUILTIN_IMAGE
from backends.images import ImageStore
from backends.rescue import RESCUE_DRIVE, may_run, reboot_blockers, rescue_drive, rescue_image
from backends.work import Undo, Work

_ON = (PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED)


class FakeRescue(Rescue):
    """Rescue and the way back."""

    def __init__(self, host: FakeHost, images: ImageStore) -> None:
        self._host = host
        self._images = images
        self.undo = {
            "remove_rescue_files": self._remove_files,
            "leave_rescue": self._leave,
        }
        """Undo actions, which take an instance's id."""

    def rescue_instance(
        self, request: pb.RescueInstanceRequest, work: Work
    ) -> pb.RescueInstanceResponse:
        """See Rescue."""
        instance_id = request.instance_id
        instance = self._host.get(instance_id)
        faulty = self._host.faulty(work, "rescue_instance", instance)
        if instance.rescue_image_id == request.rescue_image_id:
            faulty.ready()
            return pb.RescueInstanceResponse(instance=instance)
        image, blockers = rescue_image(self._images, request.rescue_image_id)
        if request.rescue_image_id == BUILTIN_IMAGE:
            blockers = []
        faulty.ready([*blockers, *reboot_blockers(instance)])
        if image is not None:
            image.mark_used()
        undo = {"instance_id": instance_id}
        faulty.step("files", Undo("remove_rescue_files", undo))
        self._write_drive(instance, request.admin_password)
        faulty.step("stop", Undo("power_on", undo) if instance.power_state in _ON else None)
        self._host.stop(instance_id, "destroyed")
        faulty.step("define", Undo("leave_rescue", undo))
        self._enter(instance_id, request.rescue_image_id)
        faulty.step("start")
        self._host.start(instance_id)
        faulty.commit()
        return pb.RescueInstanceResponse(instance=self._host.get(instance_id))

    def unrescue_instance(
        self, request: pb.UnrescueInstanceRequest, work: Work
    ) -> pb.UnrescueInstanceResponse:
        """See Rescue."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "unrescue_instance", instance)
        faulty.ready()
        if instance.rescued:
            faulty.commit()
            if any(disk.role == "rescue" for disk in instance.persistent.disks):
                faulty.step("stop")
                self._host.stop(request.instance_id, "destroyed")
                faulty.step("define")
                self._put_own_disks(request.instance_id)
            faulty.step("files")
            self._remove_files(request.instance_id)
            faulty.step("start")
            self._forget(request.instance_id)
            if may_run(instance):
                self._host.start(request.instance_id)
        return pb.UnrescueInstanceResponse(instance=self._host.get(request.instance_id))

    def _write_drive(self, instance: pb.Instance, admin_password: str) -> None:
        self._remove_files(instance.instance_id)
        drive = rescue_drive(instance, admin_password)
        if drive is not None:
            drive.write(self._host.instance_folder(instance.instance_id) / RESCUE_DRIVE)

    def _remove_files(self, instance_id: str) -> None:
        (self._host.instance_folder(instance_id) / RESCUE_DRIVE).unlink(missing_ok=True)

    def _enter(self, instance_id: str, image_id: str) -> None:
        drive = self._host.instance_folder(instance_id) / RESCUE_DRIVE
        with self._host.edit(instance_id) as edited:
            edited.rescued, edited.rescue_image_id = True, image_id
            edited.rescued_at.GetCurrentTime()
            disks = in_rescue(
                edited.persistent.disks, config_drive=str(drive) if drive.exists() else ""
            )
            _put_disks(edited, disks)

    def _leave(self, instance_id: str) -> None:
        """Its own machine again, and off; nothing where it is not in rescue."""
        instance = self._host.find(instance_id)
        if instance is None or not instance.rescued:
            return
        self._host.stop(instance_id, "failed")
        self._put_own_disks(instance_id)
        self._forget(instance_id)

    def _put_own_disks(self, instance_id: str) -> None:
        drive = self._host.instance_folder(instance_id) / CONFIG_DRIVE
        with self._host.edit(instance_id) as edited:
            disks = out_of_rescue(
                edited.persistent.disks, config_drive=str(drive) if drive.exists() else ""
            )
            _put_disks(edited, disks)

    def _forget(self, instance_id: str) -> None:
        with self._host.edit(instance_id) as edited:
            edited.rescued, edited.rescue_image_id = False, ""
            edited.ClearField("rescued_at")


def _put_disks(instance: pb.Instance, disks: list[AttachedDisk]) -> None:
    del instance.persistent.disks[:]
    instance.persistent.disks.extend(disks)
