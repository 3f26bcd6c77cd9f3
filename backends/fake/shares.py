"""Shares, on the fake."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from virtrpc.v1 import instance_pb2 as pb

from backends.contract import Shares
from backends.errors import UnsupportedError
from backends.fake.host import FakeHost
from backends.shares import (
    READ_ONLY,
    change_blockers,
    is_mounted,
    is_used_elsewhere,
    mount_blockers,
    wanted_share,
)
from backends.work import Undo, Work


class FakeShares(Shares):
    """What is noted of shares; no guest mounts them."""

    def __init__(
        self, host: FakeHost, allowed: Sequence[Path], features: Mapping[str, str]
    ) -> None:
        """`allowed` are directories that may be shared, with all below them."""
        self._host = host
        self._allowed = allowed
        self._features = features
        self.undo = {"unshare": self._undo_mount}

    def mount_share(self, request: pb.MountShareRequest, work: Work) -> pb.MountShareResponse:
        """See Shares."""
        instance, share = self._host.get(request.instance_id), wanted_share(request)
        faulty = self._host.faulty(work, "mount_share", instance)
        if share.read_only and self._features[READ_ONLY]:
            raise UnsupportedError(READ_ONLY, why=self._features[READ_ONLY], field="read_only")
        there = is_mounted(instance, share)
        faulty.ready(
            [] if there else mount_blockers(instance, share, self._allowed, hot=_is_hot(instance))
        )
        if not there:
            faulty.step(
                "share", Undo("unshare", {"share": f"{instance.instance_id} {share.share_id}"})
            )
            with self._host.edit(request.instance_id) as edited:
                edited.shares.append(share)
        return pb.MountShareResponse(instance=self._host.get(request.instance_id))

    def umount_share(self, request: pb.UmountShareRequest, work: Work) -> pb.UmountShareResponse:
        """See Shares."""
        instance = self._host.get(request.instance_id)
        faulty = self._host.faulty(work, "umount_share", instance)
        there = any(share.share_id == request.share_id for share in instance.shares)
        faulty.ready(change_blockers(instance, hot=_is_hot(instance)) if there else [])
        if there:
            faulty.step("share")
            self._undo_mount(f"{request.instance_id} {request.share_id}")
        return pb.UmountShareResponse(
            still_used=is_used_elsewhere(
                request.share_id, self._host.instances(), but=request.instance_id
            )
        )

    def _undo_mount(self, share: str) -> None:
        """Takes a share ("INSTANCE SHARE") away; nothing where it or its instance is not there."""
        instance_id, _, share_id = share.partition(" ")
        if self._host.find(instance_id) is None:
            return
        with self._host.edit(instance_id) as instance:
            kept = [there for there in instance.shares if there.share_id != share_id]
            del instance.shares[:]
            instance.shares.extend(kept)


def _is_hot(instance: pb.Instance) -> bool:
    """It has had a share since its start, or so we pretend."""
    return bool(instance.shares)
