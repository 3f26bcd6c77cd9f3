"""What a machine keeps beside its disks: firmware variables, and the state of a vTPM.

    INSTANCE/nvram.fd                     the variables
    SWTPM/INSTANCE/tpm2/tpm2-00.permall   the vTPM's, where libvirt has swtpm keep it
    INSTANCE/tpm.state                    one that has arrived, until its machine is made

libvirt gives the vTPM's to swtpm's user when it starts it, and makes a new one only where
there is none. Source: qemuTPMEmulatorCreateStorage in libvirt's qemu_tpm.c.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import libvirt
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance

from backends.durable_files import sync_folder, write_durably
from backends.errors import ContractError
from backends.libvirt.blueprint.firmware import UEFI
from backends.libvirt.definition import persistent
from backends.libvirt.domains import Domains
from backends.libvirt.folders import InstanceFolders
from backends.libvirt.xml.domain import Domain
from backends.migration.state_files import NVRAM, TPM, not_migrated, state_file
from backends.plan import InstancePlan

_NVRAM_FILE, _ARRIVED_TPM = "nvram.fd", "tpm.state"
_SYSTEM_TPMS = Path("/var/lib/libvirt/swtpm")
_TPM_FILES = {"1.2": "tpm1.2/tpm-00.permall", "2.0": "tpm2/tpm2-00.permall"}


class MachineState:
    """The state of machines, as it is sent and as it arrives."""

    def __init__(self, domains: Domains, folders: InstanceFolders) -> None:
        self._domains = domains
        self._folders = folders

    def sent(self, instance: Instance) -> list[pb.MigrationDisk]:
        """What goes along with an instance."""
        found = self._files(instance)
        return [state_file(role, path.stat().st_size) for role, path in found if path.exists()]

    def unmoved(self, instance: Instance) -> Iterator[ContractError]:
        """That the state of a machine is not where this daemon could send it from."""
        for role, path in self._files(instance):
            if not path.exists():
                why = f"{path} is not there: start the instance once, on a libvirtd of this host"
                yield not_migrated(role, why)

    def path(self, instance: Instance, role: str) -> Path:
        """Where a part of an instance's state is."""
        return dict(self._files(instance))[role]

    def install(self, plan: InstancePlan) -> None:
        """Puts the state of a vTPM that has arrived where libvirt will look for it."""
        arrived = arrived_at(self._folders.of(plan.instance_id), TPM)
        target = self._tpm(plan)
        if target is not None and arrived.exists():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            target.parent.parent.chmod(0o711)  # swtpm's user passes through it
            write_durably(target, arrived.read_bytes())
            sync_folder(target.parent.parent)

    def forget_installed(self, instance_id: str) -> None:
        """Undoes `install`; nothing where the instance is here. Idempotent."""
        if self._domains.find(instance_id) is None:
            shutil.rmtree(self._tpms() / instance_id, ignore_errors=True)

    def _files(self, instance: Instance) -> Iterator[tuple[str, Path]]:
        plan = InstancePlan(instance.instance_id, instance.spec)
        domain = self._domains.find(instance.instance_id)
        if domain is not None and plan.machine.firmware in UEFI:
            yield NVRAM, self._nvram(domain)
        tpm = self._tpm(plan)
        if tpm is not None:
            yield TPM, tpm

    def _nvram(self, domain: libvirt.virDomain) -> Path:
        """Imported instances have theirs where they had it before."""
        told = Domain.from_xml(persistent(self._domains, domain)).nvram
        return Path(told) if told else self._folders.of(domain.UUIDString()) / _NVRAM_FILE

    def _tpm(self, plan: InstancePlan) -> Path | None:
        tpm = plan.machine.tpm
        return None if tpm is None else self._tpms() / plan.instance_id / _TPM_FILES[tpm.version]

    def _tpms(self) -> Path:
        """Where this libvirt keeps the state of vTPMs."""
        embedded = self._domains.embedded
        if embedded is not None:
            return embedded.folder / "lib/swtpm"
        uri = self._domains.connection.uri
        if urlsplit(uri).path == "/session":
            return Path.home() / ".config/libvirt/qemu/swtpm"
        return _SYSTEM_TPMS


def arrived_at(folder: Path, role: str) -> Path:
    """Where a part of a machine's state arrives, in its instance's folder."""
    return folder / (_NVRAM_FILE if role == NVRAM else _ARRIVED_TPM)


def forget_arrived(folder: Path) -> None:
    """The vTPM's state has been put in its place, or is not wanted. Idempotent."""
    (folder / _ARRIVED_TPM).unlink(missing_ok=True)
