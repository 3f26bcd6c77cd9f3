"""What may be shared with a guest, said alike by every backend."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from virtrpc.v1.instance_pb2 import Instance, MountShareRequest, Share
from virtrpc.v1.types_pb2 import PowerState

from backends.errors import (
    AlreadyExistsError,
    ContractError,
    InvalidArgumentError,
    NotFoundError,
    PermissionRefusedError,
    WrongStateError,
)
from backends.host_paths import is_below
from backends.power_states import power_blockers

SHARES, READ_ONLY = "virtiofs", "virtiofs_read_only"
"""Features of backends; READ_ONLY: of those on whose shares guests can be kept from writing."""


def wanted_share(request: MountShareRequest) -> Share:
    """The share that a request asks for."""
    return Share(
        share_id=request.share_id,
        tag=request.tag,
        path=request.path,
        read_only=request.read_only,
    )


def is_mounted(instance: Instance, share: Share) -> bool:
    """Whether an instance has the share already.

    Raises AlreadyExistsError where it has another one of that id.
    """
    for there in instance.shares:
        if there == share:
            return True
        if there.share_id == share.share_id:
            raise AlreadyExistsError(
                "the instance has another share of this id", reason="SHARE_DIFFERS"
            )
    return False


def mount_blockers(
    instance: Instance, share: Share, allowed: Sequence[Path], *, hot: bool
) -> list[ContractError]:
    """What stands in the way of a share that the instance does not have yet."""
    found = [*change_blockers(instance, hot=hot), *_path_blockers(share.path, allowed)]
    if any(there.tag == share.tag for there in instance.shares):
        found.append(
            AlreadyExistsError(
                f"another share of the instance has the tag {share.tag}",
                reason="TAG_TAKEN",
                field="tag",
            )
        )
    return found


def change_blockers(instance: Instance, *, hot: bool) -> list[ContractError]:
    """Shares come and go while the machine is off, or runs and had one at its start.

    `hot`: its memory has been shared from its start.
    """
    while_on = (PowerState.POWER_STATE_RUNNING,) if hot else ()
    return power_blockers(instance, PowerState.POWER_STATE_SHUTDOWN, *while_on)


class ArrivingShares:
    """Shares of instances that come from another host: the same directories of this one."""

    def __init__(self, allowed: Sequence[Path], features: Callable[[], Mapping[str, str]]) -> None:
        """`allowed` are directories that may be shared, with all below them."""
        self._allowed = allowed
        self._features = features

    def errors(self, shares: Iterable[Share], field: str) -> Iterator[ContractError]:
        """SHARE_NOT_MIGRATED, for each that this host cannot have."""
        for index, share in enumerate(shares):
            for why in self._obstacles(share):
                yield share_not_migrated(share, why, field=f"{field}[{index}]")

    def _obstacles(self, share: Share) -> Iterator[str]:
        features = self._features()
        lacks = features[SHARES] or (features[READ_ONLY] if share.read_only else "")
        if lacks:
            yield lacks
        yield from map(str, _path_blockers(share.path, self._allowed))


def share_not_migrated(share: Share, why: str, *, field: str = "") -> ContractError:
    """That a share cannot be taken along."""
    message = f"share {share.share_id} cannot be taken along: {why}"
    return WrongStateError(message, reason="SHARE_NOT_MIGRATED", field=field)


def is_used_elsewhere(share_id: str, instances: Iterable[Instance], *, but: str) -> bool:
    """Whether an instance other than `but` has the share."""
    return any(
        there.share_id == share_id
        for instance in instances
        if instance.instance_id != but
        for there in instance.shares
    )


def _path_blockers(path: str, allowed: Sequence[Path]) -> list[ContractError]:
    """A path is judged by where its links lead, and shared as it is written."""
    if not is_below(os.path.normpath(path), allowed):
        return [_outside()]
    try:
        real = os.path.realpath(path, strict=True)
    except PermissionError:
        return [PermissionRefusedError("the path cannot be entered", field="path")]
    except OSError:
        return [NotFoundError("there is no such directory", reason="PATH_NOT_FOUND", field="path")]
    if not is_below(real, allowed):
        return [_outside()]
    if not Path(real).is_dir():
        return [InvalidArgumentError("the path is not that of a directory", field="path")]
    return []


def _outside() -> ContractError:
    return InvalidArgumentError(
        "the path is not below a directory that may be shared (--share-dir)",
        reason="PATH_NOT_ALLOWED",
        field="path",
    )
