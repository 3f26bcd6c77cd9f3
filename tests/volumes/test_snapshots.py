"""What a merge does to a chain of snapshots: files that go, snapshots that are lost."""

import pytest
from virtrpc.v1 import volume_pb2 as pb

from backends.errors import ContractError
from backends.volumes.snapshots import Merge, merged_already, plan_merge

# base ◀─ o1 ◀─ o2 ◀─ o3, active; snapshots s1, s2, s3.
CHAIN = ("o3", "o2", "o1", "base")
COMMIT, PULL = pb.SNAPSHOT_MERGE_COMMIT, pb.SNAPSHOT_MERGE_PULL


def snapshots() -> list[pb.VolumeSnapshot]:
    files = ["base", "o1", "o2", "o3"]
    return [
        pb.VolumeSnapshot(
            snapshot_id=f"s{n}",
            parent_snapshot_id=f"s{n - 1}" if n > 1 else "",
            base_file=files[n - 1],
            overlay_file=files[n],
        )
        for n in (1, 2, 3)
    ]


def planned(snapshot_id: str, **fields: object) -> Merge:
    request = pb.DeleteVolumeSnapshotRequest(snapshot_id=snapshot_id, **fields)  # type: ignore[arg-type]
    merge = plan_merge(request, snapshots(), CHAIN)
    assert merge is not None
    return merge


def told(merge: Merge) -> list[tuple[str, str, str, str]]:
    return [
        (s.snapshot_id, s.parent_snapshot_id, s.base_file, s.overlay_file) for s in merge.remaining
    ]


def test_commit_of_the_oldest() -> None:
    merge = planned("s1")
    assert (merge.top, merge.base, merge.merged) == ("o1", "base", ("o1",))
    assert told(merge) == [("s2", "", "base", "o2"), ("s3", "s2", "o2", "o3")]


def test_commit_of_the_newest_turns_the_disk() -> None:
    merge = planned("s3", merge=COMMIT)
    assert (merge.top, merge.base, merge.merged) == ("o3", "o2", ("o3",))
    assert told(merge) == [("s1", "", "base", "o1"), ("s2", "s1", "o1", "o2")]


def test_commit_of_several_loses_those_between() -> None:
    merge = planned("s1", merge=COMMIT, top_file="o2", base_file="base")
    assert merge.merged == ("o2", "o1")
    assert told(merge) == [("s3", "", "base", "o3")]


def test_pull_of_the_newest() -> None:
    merge = planned("s3", merge=PULL)
    assert (merge.pull, merge.base, merge.merged) == (True, "o1", ("o2",))
    assert told(merge) == [("s1", "", "base", "o1"), ("s2", "s1", "o1", "o3")]


def test_pull_down_to_a_file() -> None:
    merge = planned("s2", merge=PULL, base_file="base")
    assert merge.merged == ("o2", "o1")
    assert told(merge) == [("s1", "", "base", "o3")]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"merge": COMMIT, "top_file": "x"}, "FILE_NOT_FOUND"),
        ({"merge": COMMIT, "top_file": "o1", "base_file": "o2"}, "CHAIN_DIFFERS"),
        ({"merge": COMMIT, "top_file": "o1", "base_file": "o1"}, "CHAIN_DIFFERS"),
        ({"merge": PULL}, "NOT_NEWEST"),
        ({"merge": PULL, "base_file": "o3"}, "CHAIN_DIFFERS"),
    ],
)
def test_what_cannot_be_merged(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ContractError) as caught:
        planned("s1", **fields)
    assert caught.value.reason == reason


def test_an_unknown_one_is_gone() -> None:
    request = pb.DeleteVolumeSnapshotRequest(snapshot_id="s9")
    assert plan_merge(request, snapshots(), CHAIN) is None


def test_one_that_was_merged_before_the_daemon_died() -> None:
    request = pb.DeleteVolumeSnapshotRequest(snapshot_id="s1")
    chain = ("o3", "o2", "base")
    merge = merged_already(request, snapshots(), chain)
    assert merge is not None
    assert merge.merged == ("o1",)
    assert told(merge) == [("s2", "", "base", "o2"), ("s3", "s2", "o2", "o3")]
    assert merged_already(request, snapshots(), CHAIN) is None


@pytest.mark.parametrize(
    ("known", "chain", "merged", "left"),
    [
        ("s3", ("o3", "o1", "base"), ("o2",), [("s1", "", "base", "o1"), ("s2", "s1", "o1", "o3")]),
        ("s1", ("o3",), ("o2", "o1", "base"), []),
    ],
)
def test_one_that_was_pulled_before_the_daemon_died(
    known: str, chain: tuple[str, ...], merged: tuple[str, ...], left: list[tuple[str, ...]]
) -> None:
    request = pb.DeleteVolumeSnapshotRequest(snapshot_id=known, merge=PULL)
    merge = merged_already(request, snapshots(), chain)
    assert merge is not None
    assert merge.pull
    assert merge.merged == merged
    assert told(merge) == left
    assert merged_already(request, snapshots(), CHAIN) is None
