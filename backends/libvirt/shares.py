"""Shares, on libvirt: in the domain's configuration, and in the machine where it runs.

A machine that runs takes them when its memory was shared at its start, as it is where it had one
then. The machine comes first: what it refuses is not to be there at its next start.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import libvirt
from virtrpc.v1 import instance_pb2 as pb

from backends.contract import Shares
from backends.errors import UnsupportedError, WrongStateError
from backends.libvirt.domains import Domains, is_active
from backends.libvirt.probe import Probed
from backends.libvirt.xml.element import Node, parse, to_text
from backends.libvirt.xml.shares import (
    find_share,
    has_shared_memory,
    share_alias,
    share_device,
    with_share,
    without_share,
)
from backends.shares import (
    READ_ONLY,
    change_blockers,
    is_mounted,
    is_used_elsewhere,
    mount_blockers,
    wanted_share,
)
from backends.work import Undo, Work

_WHOLE = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
_RELEASE_S, _LOOK_S = 20.0, 0.2


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
        there, hot = is_mounted(instance, share), self._is_hot(domain)
        work.ready([] if there else mount_blockers(instance, share, self._allowed, hot=hot))
        if there:
            return pb.MountShareResponse(instance=instance)
        undo = Undo("unshare", {"share": f"{request.instance_id} {request.share_id}"})
        work.step("share", undo)
        device = share_device(share, read_only_program=self._probed.read_only_program)
        if hot:
            self._plug(domain, device)
        self._redefine(domain, lambda document: with_share(document, device))
        return pb.MountShareResponse(instance=self._domains.tell(domain))

    def umount_share(self, request: pb.UmountShareRequest, work: Work) -> pb.UmountShareResponse:
        """See Shares."""
        domain, instance = self._domains.managed(request.instance_id)
        there = any(share.share_id == request.share_id for share in instance.shares)
        hot = self._is_hot(domain)
        work.ready(change_blockers(instance, hot=hot) if there else [])
        if there:
            work.step("share")
            self._take_away(domain, request.share_id)
        return pb.UmountShareResponse(
            still_used=is_used_elsewhere(
                request.share_id, self._domains.read_all(), but=request.instance_id
            )
        )

    def _plug(self, domain: libvirt.virDomain, device: Node) -> None:
        try:
            self._call(domain, lambda: domain.attachDeviceFlags(to_text(device), _LIVE))
        except UnsupportedError as error:  # as libvirt 9.0 says of all that ran when it began
            raise WrongStateError(f"power it off first: {error}") from error

    def _undo_mount(self, share: str) -> None:
        """Takes a share ("INSTANCE SHARE") away; nothing where it or its instance is not there."""
        instance_id, _, share_id = share.partition(" ")
        domain = self._domains.find(instance_id)
        if domain is not None:
            was_known = self._is_plugged(domain, share_id)
            self._take_away(domain, share_id)
            if not was_known:
                self._domains.require_known(instance_id)

    def _take_away(self, domain: libvirt.virDomain, share_id: str) -> None:
        if is_active(domain):
            self._release(domain, share_id)
        self._redefine(domain, lambda document: without_share(document, share_id))
        if self._domains.embedded is not None:
            self._domains.embedded.remove_share_logs(domain.name(), share_alias(share_id))
        self._domains.tell(domain)

    def _release(self, domain: libvirt.virDomain, share_id: str) -> None:
        """Has the guest let go of the device, and returns when it has gone."""
        if not self._is_plugged(domain, share_id):
            return
        alias, end = share_alias(share_id), time.monotonic() + _RELEASE_S
        with self._domains.removals.expected(domain.UUIDString(), alias) as removal:
            self._call(domain, lambda: domain.detachDeviceAlias(alias, _LIVE))
            while self._is_plugged(domain, share_id):
                if removal.refused or time.monotonic() > end:
                    why = "the guest has not let go of the share: unmount it there first"
                    raise WrongStateError(why, reason="DEVICE_NOT_RELEASED")
                removal.wait(_LOOK_S)
        self._domains.note_devices(domain)

    def _is_plugged(self, domain: libvirt.virDomain, share_id: str) -> bool:
        if not is_active(domain):
            return False
        running = parse(str(self._call(domain, domain.XMLDesc)))
        return find_share(running, share_id) is not None

    def _is_hot(self, domain: libvirt.virDomain) -> bool:
        if not is_active(domain):
            return False
        return has_shared_memory(parse(str(self._call(domain, domain.XMLDesc))))

    def _redefine(self, domain: libvirt.virDomain, change: Callable[[str], str]) -> None:
        changed = change(str(self._call(domain, lambda: domain.XMLDesc(_WHOLE))))
        self._call(domain, lambda: self._domains.connection.handles.own.defineXML(changed))

    def _call(self, domain: libvirt.virDomain, call: Callable[[], object]) -> object:
        try:
            return call()
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, domain.UUIDString()) from error
