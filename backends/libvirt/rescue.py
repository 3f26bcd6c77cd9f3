"""Rescue on libvirt: the same domain, booted from another disk.

own system ──rescue──▶ [files ─ stop ─ define ─ start] ──▶ in rescue
     ▲                                                        │
     ╰────────── [stop ─ define ─ files ─ start] ◀──unrescue──╯

The domain's own metadata say that it is in rescue, from the definition on that
makes it so until it runs again from its own disk.
"""

from pathlib import Path

import libvirt
from google.protobuf.timestamp_pb2 import Timestamp
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Rescue
from backends.images import ImageStore, StoredImage
from backends.libvirt.blueprint.rescue import (
    disk_node,
    enter_rescue,
    leave_rescue,
    rescue_facts,
)
from backends.libvirt.definition import define, discard_saved, persistent, start_from_disk
from backends.libvirt.disks import make_overlay
from backends.libvirt.domains import Domains, is_active
from backends.libvirt.folders import InstanceFolders
from backends.libvirt.lifecycle import force_off
from backends.libvirt.xml import metadata
from backends.rescue import RESCUE_DRIVE, may_run, reboot_blockers, rescue_drive, rescue_image
from backends.work import Undo, Work

_ON = (PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED)
_DISK = "rescue.qcow2"


class LibvirtRescue(Rescue):
    """Rescue and the way back."""

    def __init__(self, domains: Domains, folders: InstanceFolders, images: ImageStore) -> None:
        self._domains = domains
        self._folders = folders
        self._images = images
        self.undo = {
            "remove_rescue_files": self._remove_files,
            "leave_rescue": self._break_off,
        }
        """Undo actions, which take an instance's id."""

    def rescue_instance(
        self, request: pb.RescueInstanceRequest, work: Work
    ) -> pb.RescueInstanceResponse:
        """See Rescue."""
        domain, instance = self._domains.managed(request.instance_id)
        if instance.rescue_image_id == request.rescue_image_id:
            work.ready()
            return self._rescued(domain)
        image, blockers = rescue_image(self._images, request.rescue_image_id)
        work.ready([*blockers, *reboot_blockers(instance)])
        assert image is not None, "or there is a blocker"  # noqa: S101
        undo = {"instance_id": request.instance_id}
        work.step("files", Undo("remove_rescue_files", undo))
        disk, drive = self._make_files(instance, image, request.admin_password)
        work.step("stop", Undo("power_on", undo) if instance.power_state in _ON else None)
        force_off(self._domains, request.instance_id)
        work.step("define", Undo("leave_rescue", undo))
        self._enter(domain, image.image_id, disk=disk, config_drive=drive)
        work.step("start")
        start_from_disk(self._domains, domain)
        work.commit()
        return self._rescued(domain)

    def unrescue_instance(
        self, request: pb.UnrescueInstanceRequest, work: Work
    ) -> pb.UnrescueInstanceResponse:
        """See Rescue."""
        domain, instance = self._domains.managed(request.instance_id)
        work.ready()
        if instance.rescued:
            # From here on it only goes forward: a cancel would leave neither machine running.
            work.commit()
            if any(disk.role == "rescue" for disk in instance.persistent.disks):
                work.step("stop")
                force_off(self._domains, request.instance_id)
                discard_saved(self._domains, domain)
                work.step("define")
                self._leave(domain)
            work.step("files")
            self._remove_files(request.instance_id)
            work.step("start")
            self._run_again(domain, start=may_run(instance))
        return pb.UnrescueInstanceResponse(instance=self._domains.tell(domain))

    def _make_files(
        self, instance: pb.Instance, image: StoredImage, admin_password: str
    ) -> tuple[Path, Path | None]:
        """The rescue disk, and the config drive where there is to be one."""
        self._remove_files(instance.instance_id)
        folder = self._folders.make(instance.instance_id)
        image.mark_used()
        make_overlay(folder / _DISK, image, size_bytes=0)
        (folder / _DISK).chmod(0o600)
        drive = rescue_drive(instance, admin_password)
        if drive is None:
            return folder / _DISK, None
        drive.write(folder / RESCUE_DRIVE)
        return folder / _DISK, folder / RESCUE_DRIVE

    def _remove_files(self, instance_id: str) -> None:
        for name in (_DISK, RESCUE_DRIVE):
            (self._folders.of(instance_id) / name).unlink(missing_ok=True)

    def _enter(
        self, domain: libvirt.virDomain, image_id: str, *, disk: Path, config_drive: Path | None
    ) -> None:
        node, own = persistent(self._domains, domain), self._domains.own(domain)
        since = Timestamp()
        since.GetCurrentTime()
        own.rescue = rescue_facts(node, image_id=image_id, since=since)
        enter_rescue(node, disk=disk, config_drive=config_drive)
        metadata.put_into(node, own)
        define(self._domains, node)

    def _rescued(self, domain: libvirt.virDomain) -> pb.RescueInstanceResponse:
        """Also when it is asked for again: what runs is wanted so."""
        if is_active(domain):
            self._domains.want(domain, PowerState.POWER_STATE_RUNNING)
        return pb.RescueInstanceResponse(instance=self._domains.tell(domain))

    def _leave(self, domain: libvirt.virDomain) -> None:
        """Its own machine again, but still noted as in rescue."""
        node, own = persistent(self._domains, domain), self._domains.own(domain)
        if own.rescue is not None and disk_node(node, "rescue") is not None:
            leave_rescue(node, own.rescue)
            define(self._domains, node)

    def _break_off(self, instance_id: str) -> None:
        """Undo of a rescue that was not finished; nothing where it was not begun."""
        domain = self._domains.find(instance_id)
        if domain is not None and self._domains.own(domain).rescue is not None:
            force_off(self._domains, instance_id)
            self._leave(domain)
            self._forget(domain)

    def _run_again(self, domain: libvirt.virDomain, *, start: bool) -> None:
        if start and not is_active(domain):
            start_from_disk(self._domains, domain)
        self._forget(domain, running=start)

    def _forget(self, domain: libvirt.virDomain, *, running: bool = False) -> None:
        """No longer in rescue."""
        own = self._domains.own(domain)
        own.rescue = None
        if running:
            own.wanted = PowerState.POWER_STATE_RUNNING
        self._domains.save_own(domain, own)
