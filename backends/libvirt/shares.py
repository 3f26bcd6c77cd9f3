"""Shares, on libvirt: the domain's persistent configuration is changed while the machine is off."""

from collections.abc import Callable, Sequence
from pathlib import Path

import libvirt
from virtrpc.v1 import instance_pb2 as pb

from backends.contract import Shares
from backends.errors import UnsupportedError
from backends.libvirt.domains import Domains
from backends.libvirt.probe import Probed
from backends.libvirt.xml.shares import share_alias, with_share, without_share
from backends.shares import (
    READ_ONLY,
    is_mounted,
    is_used_elsewhere,
    mount_blockers,
    off_blockers,
    wanted_share,
)
from backends.work import Undo, Work

_WHOLE = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE


class LibvirtShares(Shares):
    """virtiofs devices of domains; libvirt starts a virtiofsd for each with the machine."""

    def __init__(self, domains: Domains, probed: Probed, allowed: Sequence[Path]) -> None:
        """`allowed` are directories that may be shared, with all below them."""
        self._domains = domains
        self._probed = probed
        self._allowed = allowed
        self.undo = {"unshare": self._undo_mount}

    def mount_share(self, request: pb.MountShareRequest, work: Work) -> pb.MountShareResponse:
        """See Shares."""
        domain, instance = self._domains.managed(request.instance_id)
        share = wanted_share(request)
        why = self._probed.features[READ_ONLY]
        if share.read_only and why:
            raise UnsupportedError(READ_ONLY, why=why, field="read_only")
        there = is_mounted(instance, share)
        work.ready([] if there else mount_blockers(instance, share, self._allowed))
        if there:
            return pb.MountShareResponse(instance=instance)
        undo = Undo("unshare", {"share": f"{request.instance_id} {request.share_id}"})
        work.step("share", undo)
        self._redefine(domain, lambda document: with_share(document, share))
        return pb.MountShareResponse(instance=self._domains.tell(domain))

    def umount_share(self, request: pb.UmountShareRequest, work: Work) -> pb.UmountShareResponse:
        """See Shares."""
        domain, instance = self._domains.managed(request.instance_id)
        there = any(share.share_id == request.share_id for share in instance.shares)
        work.ready(off_blockers(instance) if there else [])
        if there:
            work.step("share")
            self._take_away(domain, request.share_id)
        return pb.UmountShareResponse(
            still_used=is_used_elsewhere(
                request.share_id, self._domains.read_all(), but=request.instance_id
            )
        )

    def _undo_mount(self, share: str) -> None:
        """Takes a share ("INSTANCE SHARE") away; nothing where it or its instance is not there."""
        instance_id, _, share_id = share.partition(" ")
        domain = self._domains.find(instance_id)
        if domain is not None:
            self._take_away(domain, share_id)

    def _take_away(self, domain: libvirt.virDomain, share_id: str) -> None:
        self._redefine(domain, lambda document: without_share(document, share_id))
        if self._domains.embedded is not None:
            self._domains.embedded.remove_share_logs(domain.name(), share_alias(share_id))
        self._domains.tell(domain)

    def _redefine(self, domain: libvirt.virDomain, change: Callable[[str], str]) -> None:
        try:
            changed = change(domain.XMLDesc(_WHOLE))
            self._domains.connection.handles.own.defineXML(changed)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, domain.UUIDString()) from error
