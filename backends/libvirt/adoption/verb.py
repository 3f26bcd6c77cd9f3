"""ImportInstance: a domain that the service did not make becomes one that it did.

Nothing of the running machine changes but its metadata, so the guest notices nothing.
"""

import contextlib
from pathlib import Path

import libvirt
from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import InstanceSpec
from virtrpc.v1.types_pb2 import PowerState

from backends.adoption import already_managed, contradictions, made_id
from backends.console_log import ConsoleLog
from backends.contract import Adoption
from backends.errors import ContractError, InstanceNotFoundError, WrongStateError
from backends.libvirt.adoption import marks
from backends.libvirt.adoption.reading import read_domain
from backends.libvirt.blueprint import unwritable
from backends.libvirt.domains import Domains, is_active
from backends.libvirt.errors import is_gone, translating
from backends.libvirt.folders import InstanceFolders
from backends.libvirt.instances import add_own
from backends.libvirt.xml import metadata
from backends.libvirt.xml.element import Node, parse, to_text
from backends.redaction import redacted
from backends.work import Undo, Validated, Work

_PERSISTENT = libvirt.VIR_DOMAIN_XML_INACTIVE
# With its secrets: they would be lost to the domain that is defined anew without.
_WHOLE = _PERSISTENT | libvirt.VIR_DOMAIN_XML_SECURE
_WANTED = {
    PowerState.POWER_STATE_RUNNING: PowerState.POWER_STATE_RUNNING,
    PowerState.POWER_STATE_PAUSED: PowerState.POWER_STATE_PAUSED,
}


class LibvirtAdoption(Adoption):
    """Takes domains over."""

    def __init__(self, domains: Domains, folders: InstanceFolders, *, image_dir: Path) -> None:
        self._domains = domains
        self._folders = folders
        self._image_dir = image_dir
        self.undo = {"disown": self._disown}

    def import_instance(
        self, request: pb.ImportInstanceRequest, work: Work
    ) -> pb.ImportInstanceResponse:
        """See Adoption."""
        domain = self._domains.find(request.instance_id)
        if domain is None:
            raise InstanceNotFoundError(request.instance_id)
        instance = self._domains.read(domain)
        if instance.managed:
            reply = already_managed(instance, request)
            work.ready()
            return reply
        return self._adopt(domain, instance, request, work)

    def _disown(self, subject: str) -> None:
        """Undoes an adoption; `subject` is the instance's id and where its port was logged to."""
        instance_id, _, logged = subject.partition(" ")
        domain = self._domains.find(instance_id)
        if domain is None:
            return
        with translating(instance_id):
            node = parse(domain.XMLDesc(_WHOLE))
            marks.unmark(node, logged=logged)
            self._domains.connection.handles.own.defineXML(to_text(node))
            if domain.isActive():
                _remove_metadata(domain)
        self._remove_log(instance_id)
        self._domains.tell(domain)

    def _adopt(
        self,
        domain: libvirt.virDomain,
        instance: Instance,
        request: pb.ImportInstanceRequest,
        work: Work,
    ) -> pb.ImportInstanceResponse:
        with translating(request.instance_id):
            node, persistent = parse(domain.XMLDesc(_PERSISTENT)), bool(domain.isPersistent())
        found = read_domain(node, image_dir=self._image_dir)
        log_path = self._log_path(request.instance_id)
        own = _own(request, found.spec, instance)
        reply = pb.ImportInstanceResponse(
            instance=_as_managed(instance, own),
            differences=(*found.unsaid, *marks.changes(node, own.spec, log_path)),
        )
        blockers = adoption_blockers(node, persistent=persistent)
        if request.HasField("spec"):
            blockers += contradictions(request.spec, found.spec)
            texts = request.spec.metadata.items()
            blockers += unwritable({f'spec.metadata["{k}"]': k + v for k, v in texts})
        _check(work, blockers, reply)
        work.step(
            "adopt", Undo("disown", {"subject": f"{request.instance_id} {marks.logged_to(node)}"})
        )
        self._folders.make(request.instance_id)
        log_path.touch(mode=0o600)
        self._define(domain, own, log_path)
        work.commit()
        reply.instance.CopyFrom(self._domains.tell(domain))
        return reply

    def _define(
        self, domain: libvirt.virDomain, own: metadata.InstanceMetadata, log_path: Path
    ) -> None:
        instance_id = domain.UUIDString()
        try:
            node = parse(domain.XMLDesc(_WHOLE))
            marks.mark(node, own, log_path)
            defined = self._domains.connection.handles.own.defineXML(to_text(node))
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, instance_id) from error
        if is_active(defined):
            self._domains.save_own(defined, own)

    def _log_path(self, instance_id: str) -> Path:
        folder = self._folders.of(instance_id)
        return ConsoleLog.of(folder, log_id=made_id(instance_id, "console")).path

    def _remove_log(self, instance_id: str) -> None:
        """Of the folder only what the adoption has made: disks may be in it."""
        self._log_path(instance_id).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._folders.of(instance_id).rmdir()


def _check(work: Work, blockers: list[ContractError], reply: pb.ImportInstanceResponse) -> None:
    """A check answers with what would be."""
    try:
        work.ready(blockers)
    except Validated:
        raise Validated(reply) from None


def _own(
    request: pb.ImportInstanceRequest, found: InstanceSpec, instance: Instance
) -> metadata.InstanceMetadata:
    spec = redacted(request.spec if request.HasField("spec") else found)
    return metadata.InstanceMetadata(
        spec=spec,
        metadata=dict(spec.metadata),
        wanted=_WANTED.get(instance.power_state, PowerState.POWER_STATE_SHUTDOWN),
    )


def _as_managed(instance: Instance, own: metadata.InstanceMetadata) -> Instance:
    adopted = Instance()
    adopted.CopyFrom(instance)
    adopted.managed = True
    add_own(adopted, own)
    return adopted


def adoption_blockers(node: Node, *, persistent: bool) -> list[ContractError]:
    """Why a domain cannot be adopted, whatever it is to be recorded as."""
    blockers: list[ContractError] = []
    if not persistent:
        why = "the domain is transient: it would vanish when it stops"
        blockers.append(WrongStateError(why, reason="NOT_PERSISTENT"))
    owner = marks.owner(node)
    if owner:
        blockers.append(WrongStateError(f"it belongs to {owner}", reason="OWNED_BY_OTHER"))
    return blockers


def _remove_metadata(domain: libvirt.virDomain) -> None:
    try:
        domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            None,
            metadata.PREFIX,
            metadata.NAMESPACE,
            libvirt.VIR_DOMAIN_AFFECT_LIVE,
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN_METADATA and not is_gone(error):
            raise
