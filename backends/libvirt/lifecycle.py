"""Spawn and destroy, and what an instance leaves behind, on libvirt."""

import libvirt
import structlog
from virtrpc.v1 import instance_pb2 as pb

from backends.contract import InstanceFiles, Lifecycle
from backends.errors import ContractError, InstanceNotFoundError, WrongStateError
from backends.interfaces.side import InterfaceSide
from backends.libvirt.domains import Domains, is_active
from backends.libvirt.errors import is_gone
from backends.libvirt.folders import InstanceFolders
from backends.libvirt.instances import add_live_counters
from backends.libvirt.spawning import Spawning
from backends.libvirt.volume_secrets import VolumeSecrets
from backends.migration.book import MigrationBook
from backends.plan import InstancePlan
from backends.specification import (
    existing,
    require_managed,
)
from backends.work import Work

log = structlog.get_logger()
_UNDEFINE_EVERYWHERE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
)
_UNDEFINE = _UNDEFINE_EVERYWHERE | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
_REMOVE, _KEEP = libvirt.VIR_DOMAIN_UNDEFINE_NVRAM, libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM


class LibvirtLifecycle(Lifecycle):
    """Beginning and end of instances."""

    def __init__(
        self,
        domains: Domains,
        folders: InstanceFolders,
        spawning: Spawning,
        side: InterfaceSide,
        migrations: MigrationBook,
    ) -> None:
        self._domains = domains
        self._folders = folders
        self._secrets = VolumeSecrets(domains)
        self._spawning = spawning
        self._side = side
        self._migrations = migrations
        self.undo = {
            "remove_files": folders.remove,
            "undefine": lambda instance_id: undefine(domains, instance_id),
            "undefine_arrival": lambda instance_id: undefine(
                domains, instance_id, keep_variables=True
            ),
            "force_off": lambda instance_id: force_off(domains, instance_id),
            "take_away": side.take_away,
        }

    def spawn_instance(self, request: pb.SpawnInstanceRequest, work: Work) -> pb.Instance:
        """See Lifecycle."""
        instance_id, spec = request.instance_id, request.spec
        same = existing(instance_id, spec, self._domains.namesakes(instance_id, spec))
        if same is not None:
            work.ready()
            return same
        return self._spawning.spawn(InstancePlan(instance_id, spec), work)

    def get_instance(self, request: pb.GetInstanceRequest) -> pb.GetInstanceResponse:
        """See Lifecycle."""
        domain = self._domains.find(request.instance_id)
        if domain is None:
            raise InstanceNotFoundError(request.instance_id)
        instance = self._domains.read(domain)
        try:
            add_live_counters(instance, domain)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, request.instance_id) from error
        return pb.GetInstanceResponse(instance=instance)

    def destroy_instance(
        self, request: pb.DestroyInstanceRequest, work: Work
    ) -> pb.DestroyInstanceResponse:
        """See Lifecycle."""
        domain = self._domains.find(request.instance_id)
        if domain is not None:
            require_managed(self._domains.read(domain), request.instance_id)
        work.ready()
        if domain is None:
            log.warning("instance to destroy is not on this host", instance_id=request.instance_id)
        work.step("stop")
        force_off(self._domains, request.instance_id)
        work.step("undefine")
        shared = self._migrations.is_shared(request.instance_id)
        foreign = self._folders.is_foreign(request.instance_id)
        undefine(self._domains, request.instance_id, keep_variables=shared or foreign)
        if shared:
            self._folders.hand_over(request.instance_id)
        self._migrations.destroyed(request.instance_id)
        work.step("network")
        self._side.give_up(request.instance_id)
        self._secrets.forget(request.instance_id)
        if request.destroy_disks:
            work.step("files")
            self._folders.remove(request.instance_id)
        return pb.DestroyInstanceResponse(already_gone=domain is None)


class LibvirtInstanceFiles(InstanceFiles):
    """Folders that instances leave behind, and interfaces."""

    def __init__(self, domains: Domains, folders: InstanceFolders, side: InterfaceSide) -> None:
        self._domains = domains
        self._folders = folders
        self._side = side
        self._secrets = VolumeSecrets(domains)

    def cleanup_instance(
        self, request: pb.CleanupInstanceRequest, work: Work
    ) -> pb.CleanupInstanceResponse:
        """See InstanceFiles."""
        domain = self._domains.find(request.instance_id)
        running = domain is not None and is_active(domain)
        work.ready([WrongStateError("the instance is running")] if running else [])
        removed: list[str] = []
        if domain is None:
            work.step("secrets")
            self._secrets.forget(request.instance_id)
        if domain is None and request.destroy_vifs:
            work.step("network")
            removed += self._side.give_up(request.instance_id)
        if domain is None and request.destroy_disks:
            work.step("files")
            removed += self._folders.remove(request.instance_id)
        return pb.CleanupInstanceResponse(removed=removed)

    def delete_instance_files(
        self, request: pb.DeleteInstanceFilesRequest, work: Work
    ) -> pb.DeleteInstanceFilesResponse:
        """See InstanceFiles."""
        blockers: list[ContractError] = []
        if self._domains.find(request.instance_id) is not None:
            blockers.append(WrongStateError("the instance is still defined here"))
        work.ready(blockers)
        work.step("files")
        self._folders.remove(request.instance_id)
        return pb.DeleteInstanceFilesResponse(gone=True)

    def check_instance_on_disk(
        self, request: pb.CheckInstanceOnDiskRequest
    ) -> pb.CheckInstanceOnDiskResponse:
        """See InstanceFiles."""
        return pb.CheckInstanceOnDiskResponse(
            on_disk=self._folders.of(request.instance_id).exists()
        )


def force_off(domains: Domains, instance_id: str) -> None:
    """Ends a machine at once; nothing where it is off or unknown."""
    domain = domains.find(instance_id)
    try:
        if domain is not None and domain.isActive():
            domain.destroy()
    except libvirt.libvirtError as error:
        ended_meanwhile = error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID
        if not (is_gone(error) or ended_meanwhile):
            raise domains.failed(error, instance_id) from error


def undefine(domains: Domains, instance_id: str, *, keep_variables: bool = False) -> None:
    """Makes a domain that is off unknown, its log with it; nothing where it is.

    Firmware variables go too, unless they are kept: another host may have the same file.
    """
    domain = domains.find(instance_id)
    if domain is not None:
        # First, so that whoever does this again after a crash still knows the name.
        if domains.embedded is not None:
            domains.embedded.remove_log(domain.name())
        try:
            _undefine(domain, _KEEP if keep_variables else _REMOVE)
        except libvirt.libvirtError as error:
            if not is_gone(error):
                raise domains.failed(error, instance_id) from error
    domains.gone(instance_id)


def _undefine(domain: libvirt.virDomain, variables: int) -> None:
    try:
        domain.undefineFlags(_UNDEFINE | variables)
    except libvirt.libvirtError as error:
        # Said by drivers that know not all of the flags: they keep no such things either.
        if error.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:
            raise
        domain.undefineFlags(_UNDEFINE_EVERYWHERE)
