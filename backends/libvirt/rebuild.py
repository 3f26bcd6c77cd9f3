"""Rebuild on libvirt: the same domain with other disks of its own.

stop ──▶ disks ──▶ define ──▶ start ──▶ what was is forgotten
  ╰─────────┴── undo: what was is put back ──╯  ╰─▶ or: a boot volume is written, for good

Made anew on another host (`recreate`) it is a spawn, which may find ephemeral disks.
"""

import libvirt
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import Rebuild
from backends.images import ImageStore
from backends.libvirt.blueprint.rebuild import rebuild_domain
from backends.libvirt.boot_volume import BootVolume, is_half_written, make_volume_overlay
from backends.libvirt.definition import define, persistent, start_from_disk
from backends.libvirt.domains import Domains
from backends.libvirt.folders import InstanceFolders
from backends.libvirt.lifecycle import force_off
from backends.libvirt.memento import Memento
from backends.libvirt.own_disks import kept_files, make_disks, remove_files
from backends.libvirt.placement import Placement
from backends.libvirt.spawning import Spawning
from backends.libvirt.xml.element import parse, to_text
from backends.plan import InstancePlan
from backends.rebuild import (
    as_asked,
    boot_volume,
    disk_blockers,
    rebuilt_spec,
    request_blockers,
    volume_image,
)
from backends.redaction import redacted
from backends.rescue import reboot_blockers
from backends.specification import SpecImages, existing
from backends.work import Undo, Work

_ON = (PowerState.POWER_STATE_RUNNING, PowerState.POWER_STATE_PAUSED)


class LibvirtRebuild(Rebuild):
    """Makes instances anew."""

    def __init__(
        self,
        domains: Domains,
        folders: InstanceFolders,
        images: ImageStore,
        spawning: Spawning,
    ) -> None:
        self._domains = domains
        self._folders = folders
        self._images = images
        self._spawning = spawning
        self.undo = {"put_back": self._put_back}
        """Undo actions, which take an instance's id."""

    def rebuild_instance(self, request: pb.RebuildInstanceRequest, work: Work) -> Instance:
        """See Rebuild."""
        if request.recreate:
            return self._recreate(request, work)
        domain, instance = self._domains.managed(request.instance_id)
        volume = self._boot_volume(domain, instance)
        if work.operation_id and self._domains.own(domain).rebuilt_by == work.operation_id:
            return self._finished(domain, volume, work)  # after a crash past no return
        plan = InstancePlan(request.instance_id, rebuilt_spec(instance.spec, request))
        images = SpecImages(plan.spec, self._images)
        image, image_errors = volume_image(request, self._images)
        blockers = [
            *request_blockers(request),
            *disk_blockers(request, plan, instance),
            *image_errors,
            *as_asked(self._spawning.rebuild_blockers(plan, images), request),
            *reboot_blockers(instance),
        ]
        if image is not None and volume is not None and not blockers:
            blockers += volume.size_errors(image)
        work.ready(blockers)
        self._stop(request, instance, work)
        size_bytes = volume.measured(work) if volume is not None and image is not None else 0
        self._make(domain, plan, images, work, keep=request.preserve_ephemeral)
        if image is None:
            self._start(domain, work)
        else:
            image.mark_used()
            make_volume_overlay(self._folders.of(request.instance_id), image, size_bytes)
        work.commit()
        return self._finished(domain, volume, work)

    def _stop(self, request: pb.RebuildInstanceRequest, instance: Instance, work: Work) -> None:
        undo = Undo("power_on", {"instance_id": request.instance_id})
        work.phase("stop", percent=5)
        work.step("stop", undo if instance.power_state in _ON else None)
        force_off(self._domains, request.instance_id)

    def _make(
        self,
        domain: libvirt.virDomain,
        plan: InstancePlan,
        images: SpecImages,
        work: Work,
        *,
        keep: bool,
    ) -> None:
        work.phase("image", percent=15, message=plan.spec.image.image_id)
        work.phase("disks", percent=20)
        work.step("disks", Undo("put_back", {"instance_id": plan.instance_id}))
        self._replace_disks(domain, plan, images, work, keep=keep)
        work.phase("define", percent=60)
        work.step("define")
        self._define(domain, plan, images, by=work.operation_id)

    def _start(self, domain: libvirt.virDomain, work: Work) -> None:
        work.phase("start", percent=80)
        work.step("start", Undo("force_off", {"instance_id": domain.UUIDString()}))
        start_from_disk(self._domains, domain)

    def _recreate(self, request: pb.RebuildInstanceRequest, work: Work) -> Instance:
        spec = rebuilt_spec(request.spec, request)
        same = existing(
            request.instance_id, spec, self._domains.namesakes(request.instance_id, spec)
        )
        if same is not None:
            work.ready()
            Memento(self._folders.of(request.instance_id)).forget()
            return same
        return self._spawning.spawn(
            InstancePlan(request.instance_id, spec),
            work,
            keep_ephemeral=request.preserve_ephemeral,
            told=lambda errors: [
                *request_blockers(request),
                *as_asked(errors, request),
            ],
        )

    def _replace_disks(
        self,
        domain: libvirt.virDomain,
        plan: InstancePlan,
        images: SpecImages,
        work: Work,
        *,
        keep: bool,
    ) -> None:
        """Remembers what is there, then makes the plan's disks; ephemeral ones may be kept."""
        folder = self._folders.make(plan.instance_id)
        Memento(folder).take(to_text(persistent(self._domains, domain)))
        kept = kept_files(plan, folder) if keep else frozenset[str]()
        remove_files(folder, keep=kept)
        make_disks(plan, images, folder, checkpoint=work.checkpoint, keep=kept)

    def _define(
        self, domain: libvirt.virDomain, plan: InstancePlan, images: SpecImages, *, by: str
    ) -> None:
        node, own = persistent(self._domains, domain), self._domains.own(domain)
        own.spec, own.rebuilt_by = redacted(plan.spec), by
        own.wanted = PowerState.POWER_STATE_RUNNING
        place = self._spawning.place(plan, images, Placement())
        rebuild_domain(node, plan.instance_id, own, place)
        define(self._domains, node)

    def _boot_volume(self, domain: libvirt.virDomain, instance: Instance) -> BootVolume | None:
        disk = boot_volume(instance)
        return None if disk is None else BootVolume(self._domains, domain, disk.device_name)

    def _finished(
        self, domain: libvirt.virDomain, volume: BootVolume | None, work: Work
    ) -> Instance:
        """What is past the point of no return: a boot volume is written, then all is told."""
        folder = self._folders.of(domain.UUIDString())
        Memento(folder).forget()
        if volume is not None and is_half_written(folder):
            volume.write(folder, work)
        return self._domains.tell(domain)

    def _put_back(self, instance_id: str) -> None:
        """Undo: the files and the definition that were; nothing where none were remembered."""
        memento = Memento(self._folders.of(instance_id))
        definition = memento.put_back()
        if definition:
            force_off(self._domains, instance_id)
            define(self._domains, parse(definition))
        memento.forget()
