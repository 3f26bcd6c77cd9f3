"""`virtrpc volume`: sources as they are noted, secrets by standard input, what is told."""

import io
import json
from functools import partial

import pytest
from virtrpc.cli.volume_source import source
from virtrpc.v1 import spec_pb2
from virtrpc.v1 import volume_pb2 as messages
from virtrpc.v1.instance_pb2 import AttachedDisk, GetInstanceResponse
from virtrpc.v1.operation_pb2 import Operation, OperationState

from tests.clients.python.conftest import Cli
from tests.clients.python.scripted import ScriptedDaemon

WEB_1 = "3b241101-e2bb-4255-8caf-4136c566a962"
VOLUME = "5d1f8a52-3a6e-4c0f-8a43-000000000001"
NEW = "5d1f8a52-3a6e-4c0f-8a43-000000000002"
DISK = AttachedDisk(
    volume_id=VOLUME,
    device_name="vdb",
    source="/v/a",
    bus=spec_pb2.DISK_BUS_VIRTIO,
    format=spec_pb2.DISK_FORMAT_RAW,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/v/a.raw", {"local_file": {"path": "/v/a.raw"}}),
        ("/dev/mapper/a", {"local_block": {"path": "/dev/mapper/a"}}),
        ("nbd://h:1/a%20b", {"nbd": {"host": "h", "port": 1, "export": "a b"}}),
        ("nbd+unix:///e?socket=/s", {"nbd": {"socket_path": "/s", "export": "e"}}),
        ("nbd://[::1]/", {"nbd": {"host": "::1"}}),
        ("iscsi://h/iqn.x:y/7", {"iscsi": {"host": "h", "target_iqn": "iqn.x:y", "lun": 7}}),
        ("rbd:p/i", {"rbd": {"pool": "p", "image": "i"}}),
        ("nfs://h/a/b/c", {"nfs": {"host": "h", "export_path": "/a/b", "file_name": "c"}}),
    ],
)
def test_a_source_is_a_path_or_a_uri(text: str, expected: dict[str, object]) -> None:
    assert source(text) == spec_pb2.VolumeConnection(**expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        *("a.raw", "http://h/x", "iscsi://h/t", "rbd:p", "nbd+unix:///x"),
        *("nbd://joe:secret@h/x", "iscsi://joe@h/iqn.x/1", "nbd://h:0/x", "nbd://h/x?tls=1"),
        *("rbd:p/i#x", "iscsi://h/iqn.x/99999999999"),
    ],
)
async def test_what_is_no_source_is_wrong_usage(
    cli: Cli, daemon: ScriptedDaemon, text: str
) -> None:
    assert (await cli("volume", "attach", WEB_1, text)).code == 2
    assert not daemon.requests


async def test_attach_says_all_that_was_asked(cli: Cli, daemon: ScriptedDaemon) -> None:
    response = messages.AttachVolumeResponse(disk=DISK)
    daemon.answer("AttachVolume", lambda _: response)
    outcome = await cli(
        *("volume", "attach", WEB_1, "/v/a.qcow2", "--format", "qcow2", "--id", VOLUME),
        *("--bus", "scsi", "--boot-index", "0", "--read-only", "--discard"),
        *("--total-iops", "500", "--read-bytes-per-s", "1M", "--timeout", "5"),
    )
    assert (outcome.code, outcome.out) == (0, f"{WEB_1}: volume {VOLUME} is vdb\n")
    (request,) = daemon.requests["AttachVolume"]
    device = request.device
    assert device.volume.local_file.format == spec_pb2.DISK_FORMAT_QCOW2
    assert (device.volume.volume_id, device.bus) == (VOLUME, spec_pb2.DISK_BUS_SCSI)
    assert device.HasField("boot_index")
    assert device.volume.read_only
    assert device.volume.discard
    assert device.volume.qos == spec_pb2.DiskQos(total_iops=500, read_bytes_per_s=1 << 20)
    assert request.timeout.seconds == 5


@pytest.mark.parametrize(
    ("source_and_flags", "path"),
    [
        (["/v/a", "--encrypted"], "encryption.passphrase"),
        (["iscsi://h/iqn.x/1", "--user", "joe"], "iscsi.chap_password"),
        (["rbd:p/i", "--monitor", "m", "--user", "joe"], "rbd.key"),
    ],
)
async def test_secrets_come_by_standard_input(
    cli: Cli,
    daemon: ScriptedDaemon,
    monkeypatch: pytest.MonkeyPatch,
    source_and_flags: list[str],
    path: str,
) -> None:
    daemon.answer("AttachVolume", lambda _: messages.AttachVolumeResponse())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"s3cret\n")))
    assert (await cli("volume", "attach", WEB_1, *source_and_flags)).code == 0
    (request,) = daemon.requests["AttachVolume"]
    part, name = path.split(".")
    assert getattr(getattr(request.device.volume, part), name) in ("s3cret", b"s3cret")


async def test_detach_extend_and_list(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer("DetachVolume", lambda _: messages.DetachVolumeResponse(already_gone=True))
    daemon.answer("ExtendVolume", lambda _: messages.ExtendVolumeResponse(guest_size_bytes=2 << 30))
    found = GetInstanceResponse()
    found.instance.persistent.disks.append(DISK)
    daemon.answer("GetInstance", lambda _: found)
    detached = await cli("volume", "detach", WEB_1, VOLUME, "--attachment", NEW, "--timeout", "0")
    assert detached.out == f"{WEB_1}: it was not attached\n"
    (request,) = daemon.requests["DetachVolume"]
    assert (request.attachment_id, request.HasField("timeout")) == (NEW, True)
    assert (await cli("volume", "extend", WEB_1, VOLUME, "2G")).out == (
        f"{WEB_1}: the guest sees 2 GiB\n"
    )
    assert [VOLUME, "vdb", "virtio", "raw", "/v/a"] in [
        line.split() for line in (await cli("volume", "list", WEB_1)).out.splitlines()
    ]


def _same(operation: Operation, _request: object) -> Operation:
    return operation


async def test_swap_and_snapshots_are_followed_to_their_end(
    cli: Cli, daemon: ScriptedDaemon
) -> None:
    results = {
        "SwapVolume": messages.SwapVolumeResponse(disk=DISK, size_bytes=1 << 20),
        "CreateVolumeSnapshot": messages.CreateVolumeSnapshotResponse(
            snapshot=messages.VolumeSnapshot(snapshot_id=NEW, base_file="a")
        ),
        "DeleteVolumeSnapshot": messages.DeleteVolumeSnapshotResponse(released_files=["a"]),
    }
    for verb, result in results.items():
        operation = Operation(
            operation_id=verb, state=OperationState.OPERATION_STATE_SUCCEEDED, done=True
        )
        operation.result.Pack(result)
        daemon.answer(verb, partial(_same, operation))
    swapped = await cli("volume", "swap", WEB_1, VOLUME, "nbd://h/", "--id", NEW)
    assert swapped.out == f"{WEB_1}: vdb is volume {VOLUME}, 1 MiB\n"
    taken = await cli("volume", "snapshot", WEB_1, VOLUME, "--id", NEW, "--quiesce")
    assert taken.out == f"{WEB_1}: snapshot {NEW} of a\n"
    merged = await cli("volume", "delete-snapshot", WEB_1, VOLUME, NEW, "--merge", "pull")
    assert merged.out == f"{WEB_1}: merged; no longer in use: a\n"


async def test_connector_names_and_filesystems(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer(
        "GetVolumeConnector",
        lambda _: messages.GetVolumeConnectorResponse(
            connector=messages.VolumeConnector(hostname="h", initiator_iqn="iqn.x")
        ),
    )
    daemon.answer(
        "AssignDeviceNames",
        lambda _: messages.AssignDeviceNamesResponse(
            root_device_name="vda", next_device_name="vdb"
        ),
    )
    daemon.answer(
        "CheckFilesystemSupport",
        lambda _: messages.CheckFilesystemSupportResponse(supported_filesystems=["ext4"]),
    )
    assert "iqn.x" in (await cli("volume", "connector")).out
    named = json.loads((await cli("volume", "names", WEB_1, "-o", "json")).out)
    assert named == {"root_device_name": "vda", "next_device_name": "vdb"}
    assert (await cli("volume", "filesystem", "xfs")).out == "no (there are: ext4)\n"
