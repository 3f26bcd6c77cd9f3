"""Snapshots of a volume as places in a chain of files: what a merge does to them. Pure.

volume ◀── overlay of A ◀── overlay of B, active
  ▲            ▲
base of A    base of B: each holds the state at its snapshot
"""

from collections.abc import Sequence
from dataclasses import dataclass

from virtrpc.v1 import volume_pb2 as pb
from virtrpc.v1.instance_pb2 import AttachedDisk

from backends.errors import (
    AlreadyExistsError,
    ContractError,
    NotFoundError,
    WrongStateError,
)
from backends.volumes.storage import own_name

_PULL = pb.SNAPSHOT_MERGE_PULL


def unsupported(disk: AttachedDisk) -> list[ContractError]:
    """That snapshots of a volume can be taken at all."""
    for wrong, why in (
        (not disk.source.startswith("/") or disk.source.startswith("/dev/"), "it is no file"),
        (disk.encrypted, "it is encrypted"),
        (disk.multi_attach, "several instances may write to it"),
    ):
        if wrong:
            reason = "SNAPSHOT_UNSUPPORTED"
            return [WrongStateError(f"the volume has no snapshots: {why}", reason=reason)]
    return []


def existing(
    request: pb.CreateVolumeSnapshotRequest, snapshots: Sequence[pb.VolumeSnapshot]
) -> pb.VolumeSnapshot | None:
    """The snapshot of that id, if there is one; raises SNAPSHOT_EXISTS for another volume's."""
    for snapshot in snapshots:
        if snapshot.snapshot_id == request.snapshot_id:
            if snapshot.volume_id == request.volume_id:
                return snapshot
            raise AlreadyExistsError(
                f"{request.snapshot_id} is a snapshot of volume {snapshot.volume_id}",
                reason="SNAPSHOT_EXISTS",
            )
    return None


def parent_errors(
    request: pb.CreateVolumeSnapshotRequest, newest: pb.VolumeSnapshot | None
) -> list[ContractError]:
    """That the newest snapshot is the one that the caller takes for it."""
    newest_id = newest.snapshot_id if newest is not None else ""
    if request.parent_snapshot_id in ("", newest_id):
        return []
    why = f"the newest snapshot is {newest_id or 'none'}"
    metadata = {"newest_snapshot_id": newest_id}
    return [WrongStateError(why, reason="PARENT_DIFFERS", metadata=metadata)]


def overlay_name(request: pb.CreateVolumeSnapshotRequest, active: str) -> str:
    """The name of a snapshot's overlay beside the active file."""
    return request.overlay_file or f"{own_name(active)}.{request.snapshot_id}"


@dataclass(frozen=True)
class Merge:
    """Files that are merged into another one."""

    pull: bool
    top: str
    """COMMIT: the uppermost that goes. PULL: the active file, which stays."""
    base: str
    """COMMIT: what they are written into. PULL: what stays below; empty: nothing."""
    merged: tuple[str, ...]
    """Files that are no longer in use afterwards, the uppermost first."""
    remaining: tuple[pb.VolumeSnapshot, ...]
    """Snapshots that there still are, oldest first, with their files as they are then."""


def plan_merge(
    request: pb.DeleteVolumeSnapshotRequest,
    snapshots: Sequence[pb.VolumeSnapshot],
    chain: Sequence[str],
) -> Merge | None:
    """The merge that deletes a snapshot; None where it is not known and no files are given.

    `snapshots` are those of the volume, oldest first; `chain` the names of its files, the
    active one first. Raises FILE_NOT_FOUND, CHAIN_DIFFERS or NOT_NEWEST.
    """
    known = next((s for s in snapshots if s.snapshot_id == request.snapshot_id), None)
    if known is None and not (request.top_file or request.base_file):
        return None
    if request.merge == _PULL:
        return _plan_pull(request, known, snapshots, chain)
    top = request.top_file or (known.overlay_file if known else chain[0])
    base = request.base_file or (known.base_file if known else chain[-1])
    upper, lower = _place(top, chain), _place(base, chain)
    if lower <= upper:
        raise WrongStateError(f"{base} is not below {top}", reason="CHAIN_DIFFERS")
    lost = set(chain[upper + 1 : lower + 1])
    remaining = [_moved(s, {top: base}) for s in snapshots if s.base_file not in lost]
    merged = tuple(chain[upper:lower])
    left = [name for name in chain if name not in merged]
    return Merge(False, top, base, merged, _with_overlays(remaining, left))


def merged_already(
    request: pb.DeleteVolumeSnapshotRequest,
    snapshots: Sequence[pb.VolumeSnapshot],
    chain: Sequence[str],
) -> Merge | None:
    """The merge of a call that died after it: what it merges has left the chain."""
    known = next((s for s in snapshots if s.snapshot_id == request.snapshot_id), None)
    if known is None or request.top_file or request.base_file:
        return None
    if request.merge == _PULL:
        return _pulled_already(known, snapshots, chain)
    if known.overlay_file in chain:
        return None
    remaining = [
        _moved(s, {known.overlay_file: known.base_file}) for s in snapshots if s is not known
    ]
    overlay, base = known.overlay_file, known.base_file
    return Merge(False, overlay, base, (overlay,), _with_overlays(remaining, chain))


def _pulled_already(
    known: pb.VolumeSnapshot, snapshots: Sequence[pb.VolumeSnapshot], chain: Sequence[str]
) -> Merge | None:
    if known.base_file in chain:
        return None
    gone = tuple(s.base_file for s in reversed(snapshots) if s.base_file not in chain)
    remaining = [s for s in snapshots if s.base_file in chain]
    return Merge(True, chain[0], "", gone, _with_overlays(remaining, chain))


def _plan_pull(
    request: pb.DeleteVolumeSnapshotRequest,
    known: pb.VolumeSnapshot | None,
    snapshots: Sequence[pb.VolumeSnapshot],
    chain: Sequence[str],
) -> Merge:
    base = request.base_file
    if not base and known is not None:
        if known is not snapshots[-1]:
            why = "a pull merges the newest snapshot only"
            raise WrongStateError(why, reason="NOT_NEWEST")
        base = snapshots[-2].base_file if len(snapshots) > 1 else ""
    lower = _place(base, chain) if base else len(chain)
    if lower == 0:
        raise WrongStateError(f"{base} is not below {chain[0]}", reason="CHAIN_DIFFERS")
    merged = tuple(chain[1:lower])
    remaining = [s for s in snapshots if s.base_file not in merged]
    left = [name for name in chain if name not in merged]
    return Merge(True, chain[0], base, merged, _with_overlays(remaining, left))


def _place(name: str, chain: Sequence[str]) -> int:
    if name not in chain:
        why = f"the volume has no file {name}"
        raise NotFoundError(why, reason="FILE_NOT_FOUND")
    return list(chain).index(name)


def _moved(snapshot: pb.VolumeSnapshot, names: dict[str, str]) -> pb.VolumeSnapshot:
    moved = pb.VolumeSnapshot()
    moved.CopyFrom(snapshot)
    moved.base_file = names.get(snapshot.base_file, snapshot.base_file)
    return moved


def _with_overlays(
    snapshots: Sequence[pb.VolumeSnapshot], chain: Sequence[str]
) -> tuple[pb.VolumeSnapshot, ...]:
    """Each with the file above its base, and the snapshot before it as its parent."""
    made: list[pb.VolumeSnapshot] = []
    for snapshot in snapshots:
        kept = _moved(snapshot, {})
        if kept.base_file in chain:
            above = list(chain).index(kept.base_file) - 1
            kept.overlay_file = chain[max(above, 0)]
        kept.parent_snapshot_id = made[-1].snapshot_id if made else ""
        made.append(kept)
    return tuple(made)
