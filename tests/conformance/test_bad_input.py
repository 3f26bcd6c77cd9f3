"""Bad input is refused with the fields at fault, whatever it is, and leaves nothing."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from virtrpc.v1 import console_pb2, event_pb2, operation_pb2, types_pb2
from virtrpc.v1 import instance_pb2 as pb

from service.verbs import Verb, all_verbs
from tests.conformance.bad_spawns import BAD, INVALID, MIB
from tests.conformance.conftest import Guest, state_of
from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now
from tests.images import qcow2_header
from tests.instances import TIMEOUT_S, finished, small_spec, spawned
from tests.refusals import DOMAIN, Refusal, refusal_of, refused

NOT_FOUND = grpc.StatusCode.NOT_FOUND
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
HOSTILE_TEXT = '"it\'s" <domain>&amp;</domain> ]]> <!-- -- ${x} `id` é \U0001f600 \\ %s %n'


def good_request(backend: str) -> pb.SpawnInstanceRequest:
    return pb.SpawnInstanceRequest(
        instance_id=str(uuid.uuid4()), spec=small_spec(backend=backend), request_id="r"
    )


@pytest.mark.parametrize("validate_only", [False, True])
@pytest.mark.parametrize("case", BAD)
def test_bad_spawn_is_refused_with_the_fields_at_fault(
    connection: Connection, backend: str, guest: Guest, case: str, validate_only: bool
) -> None:
    request = good_request(backend)
    request.validate_only = validate_only
    BAD[case].change(request)
    before = cursor_now(connection)
    with refused(INVALID, "INVALID_REQUEST") as refusal:
        connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
    assert set(refusal.fields) == set(BAD[case].fields)
    assert_fit_for_a_caller(refusal)
    assert cursor_now(connection) == before


def assert_fit_for_a_caller(refusal: Refusal) -> None:
    assert refusal.domain == DOMAIN
    assert refusal.message
    assert len(refusal.message) <= 1024
    assert refusal.message.isascii()


@pytest.mark.parametrize("backend", ["fake"], indirect=True)
@pytest.mark.parametrize(
    "action", ["", "explode", "fail:1", "delay:", "delay:x", "delay:-1", "delay:nan", "delay:1e400",
               "delay:²", "delay:" + "9" * 99],
)  # fmt: skip
def test_label_that_is_no_fault_is_refused_by_the_fake_backend(
    connection: Connection, backend: str, action: str
) -> None:
    """Whenever it would happen: a fault that was misspelt would be none."""
    request = good_request(backend)
    request.spec.labels["fake/pause_instance"] = action
    operation = finished(connection, connection.instances.SpawnInstance(request, timeout=TIMEOUT_S))
    assert operation.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert [b.field for b in operation.error.blockers] == ['spec.labels["fake/pause_instance"]']


@pytest.mark.parametrize("size", [300, MIB])
def test_overlong_key_of_a_map_is_refused_in_a_reply_of_bounded_size(
    connection: Connection, backend: str, size: int
) -> None:
    request = good_request(backend)
    request.spec.metadata["k" * size] = "value"
    with refused(INVALID, "INVALID_REQUEST") as refusal:
        connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
    (field,) = refusal.fields
    assert field.startswith('spec.metadata["kkk')
    assert len(field) <= 256
    assert_fit_for_a_caller(refusal)


def test_more_faults_than_fit_are_counted(connection: Connection, backend: str) -> None:
    request = good_request(backend)
    for number in range(64):
        request.spec.guest.ssh_public_keys.append(f"key\n{number}")
    for number in range(32):
        request.spec.interfaces.add(port_id=f"port {number}", mac_address="none")
    with refused(INVALID, "INVALID_REQUEST") as refusal:
        connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
    assert len(refusal.fields) > 5
    assert int(refusal.metadata["violations_left_out"]) > 0


def test_hostile_text_in_metadata_comes_back_unchanged(
    connection: Connection, backend: str
) -> None:
    spec = small_spec(backend=backend)
    spec.metadata["quotes"] = HOSTILE_TEXT
    spec.metadata[HOSTILE_TEXT] = "key"
    spec.labels["quotes"] = HOSTILE_TEXT
    spec.flavor.name = HOSTILE_TEXT
    with spawned(connection, spec) as instance_id:
        for instance in (
            state_of(connection, instance_id),
            connection.instances.GetInstance(
                pb.GetInstanceRequest(instance_id=instance_id), timeout=TIMEOUT_S
            ).instance,
        ):
            assert dict(instance.metadata) == dict(spec.metadata)
            assert dict(instance.labels) == dict(spec.labels)
            assert instance.spec == spec


class TestOnTheWire:
    """Bytes that are no request."""

    @pytest.fixture
    def call(self, connection: Connection) -> Callable[[bytes], bytes]:
        method = connection.channel.unary_unary("/virtrpc.v1.InstanceService/SpawnInstance")  # type: ignore[var-annotated]
        return lambda raw: method(raw, timeout=TIMEOUT_S)

    @pytest.mark.parametrize(
        "raw",
        [
            b"\xff",
            b"\x0a\xff\xff\xff\xff\x0f",  # a string of 4 GiB that is not there
            b"\x0a\x02\xc3\x28",  # a string that is not UTF-8
            b"\x08\x01",  # a number where a string belongs is unknown, and the id is missing
            b"\x13" * 20_000,  # groups in groups
            b"\x12\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # an endless length
            b"\x00" * 1000,
            os.urandom(64) + b"\xff",
        ],
        ids=["tag", "length", "utf-8", "type", "groups", "varint", "zeros", "random"],
    )
    def test_malformed_bytes_are_refused(self, call: Callable[[bytes], bytes], raw: bytes) -> None:
        with refused(INVALID, "INVALID_REQUEST") as refusal:
            call(raw)
        assert_fit_for_a_caller(refusal)

    def test_deeply_nested_message_is_refused(
        self, backend: str, call: Callable[[bytes], bytes]
    ) -> None:
        """Groups of an unknown field, well-formed but for their depth, after a good request."""
        begin, end = varint(1000 << 3 | 3), varint(1000 << 3 | 4)
        request = good_request(backend)
        request.validate_only = True
        call(request.SerializeToString() + begin * 10 + end * 10)
        with refused(INVALID, "INVALID_REQUEST"):
            call(request.SerializeToString() + begin * 10_000 + end * 10_000)

    def test_message_beyond_the_limit_is_refused(self, call: Callable[[bytes], bytes]) -> None:
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
            call(b"\x0a" + varint(20 * MIB) + bytes(20 * MIB))

    def test_unknown_fields_are_passed_over(
        self, backend: str, call: Callable[[bytes], bytes]
    ) -> None:
        """A client of a later version is understood as far as this one goes."""
        request = good_request(backend)
        request.validate_only = True
        reply = operation_pb2.Operation.FromString(
            call(request.SerializeToString() + b"\xfa\x3f\x03abc")
        )
        assert reply.state == operation_pb2.OPERATION_STATE_SUCCEEDED


def varint(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])


@pytest.mark.parametrize(
    "verb",
    [v for v in all_verbs().values() if "instance_id" in v.request_class.DESCRIPTOR.fields_by_name],
    ids=lambda verb: str(verb.name),
)
def test_bad_id_is_refused_by_every_verb_of_an_instance(connection: Connection, verb: Verb) -> None:
    channel = connection.channel
    for instance_id in ("x", "../x", "\x00", "a" * 5000):
        raw = verb.request_class(instance_id=instance_id).SerializeToString()
        with pytest.raises(grpc.RpcError) as caught:
            if verb.server_streaming:
                list(channel.unary_stream(verb.path)(raw, timeout=TIMEOUT_S))  # type: ignore[arg-type]
            else:
                channel.unary_unary(verb.path)(raw, timeout=TIMEOUT_S)  # type: ignore[arg-type]
        refusal = refusal_of(caught.value)
        assert refusal.code in (INVALID, grpc.StatusCode.UNIMPLEMENTED)
        assert refusal.code != INVALID or "instance_id" in refusal.fields


BAD_DURATIONS = [
    Duration(seconds=-1),
    Duration(nanos=-1),
    Duration(seconds=315_576_000_001),
    Duration(seconds=86_401),
]


@pytest.mark.parametrize("duration", BAD_DURATIONS, ids=str)
def test_duration_out_of_bounds_is_refused(
    connection: Connection, guest: Guest, duration: Duration
) -> None:
    off = pb.PowerOffInstanceRequest(instance_id=guest.instance_id, timeout=duration)
    with refused(INVALID, "INVALID_REQUEST") as refusal:
        connection.instances.PowerOffInstance(off, timeout=TIMEOUT_S)
    assert refusal.fields == ["timeout"]
    reboot = pb.RebootInstanceRequest(instance_id=guest.instance_id, timeout=duration)
    with refused(INVALID, "INVALID_REQUEST"):
        connection.instances.RebootInstance(reboot, timeout=TIMEOUT_S)
    watch = event_pb2.WatchEventsRequest(heartbeat=duration)
    with refused(INVALID, "INVALID_REQUEST"):
        next(connection.events.WatchEvents(watch, timeout=TIMEOUT_S))
    wait = operation_pb2.WaitOperationRequest(operation_id=guest.instance_id, timeout=duration)
    with refused(INVALID, "INVALID_REQUEST"):
        connection.operations.WaitOperation(wait, timeout=TIMEOUT_S)


def test_unknown_enum_numbers_are_refused(connection: Connection, guest: Guest) -> None:
    calls: list[tuple[Callable[..., Any], Any, str]] = [
        (connection.instances.GetInstance,
         pb.GetInstanceRequest(instance_id=guest.instance_id, view=99), "view"),  # type: ignore[arg-type]
        (connection.instances.ListInstances, pb.ListInstancesRequest(view=-1), "view"),  # type: ignore[arg-type]
        (connection.instances.ListInstances,
         pb.ListInstancesRequest(power_states=[types_pb2.POWER_STATE_RUNNING, 99]),  # type: ignore[list-item]
         "power_states[1]"),
        (connection.instances.RebootInstance,
         pb.RebootInstanceRequest(instance_id=guest.instance_id, type=3), "type"),  # type: ignore[arg-type]
        (connection.operations.ListOperations,
         operation_pb2.ListOperationsRequest(states=[0]), "states[0]"),  # type: ignore[list-item]
    ]  # fmt: skip
    for call, request, field in calls:
        with refused(INVALID, "INVALID_REQUEST") as refusal:
            call(request, timeout=TIMEOUT_S)
        assert refusal.fields == [field]


def test_bad_streams_are_refused(connection: Connection, guest: Guest) -> None:
    streams: list[tuple[Callable[..., Any], Any, str]] = [
        (connection.events.WatchEvents, event_pb2.WatchEventsRequest(types=[99]), "types[0]"),  # type: ignore[list-item]
        (connection.events.WatchEvents,
         event_pb2.WatchEventsRequest(instance_ids=["x"]), "instance_ids[0]"),
        (connection.events.WatchEvents,
         event_pb2.WatchEventsRequest(after={"epoch": "e" * 65}), "after.epoch"),  # type: ignore[arg-type]
        (connection.consoles.StreamConsoleOutput,
         console_pb2.StreamConsoleOutputRequest(instance_id=guest.instance_id), "start"),
        (connection.consoles.StreamConsoleOutput,
         console_pb2.StreamConsoleOutputRequest(instance_id=guest.instance_id, offset=2**63),
         "offset"),
        (connection.consoles.StreamConsoleOutput,
         console_pb2.StreamConsoleOutputRequest(instance_id=guest.instance_id, now=False), "now"),
    ]  # fmt: skip
    for call, request, field in streams:
        with refused(INVALID, "INVALID_REQUEST") as refusal:
            list(call(request, timeout=TIMEOUT_S))
        assert refusal.fields == [field]


class TestImages:
    """What a specification may name of the image store."""

    @pytest.fixture
    def store(self, daemon: DaemonProcess) -> Iterator[Path]:
        """A way to put files into the store, for this test alone."""
        before = set(daemon.image_dir.iterdir())
        yield daemon.image_dir
        for path in set(daemon.image_dir.iterdir()) - before:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

    def test_folder_is_no_image(self, connection: Connection, backend: str, store: Path) -> None:
        (store / "folder.raw").mkdir()
        request = good_request(backend)
        request.spec.image.image_id = "folder"
        self.assert_refused(connection, request, NOT_FOUND, "IMAGE_NOT_FOUND", "image_id")

    @pytest.mark.parametrize("field", ["image_id", "kernel_image_id", "ramdisk_image_id"])
    @pytest.mark.parametrize("image_id", ["missing", "i" * 255, "a.b-c_d", "guest.qcow2.qcow2"])
    def test_missing_image_is_not_found(
        self, connection: Connection, backend: str, field: str, image_id: str
    ) -> None:
        request = good_request(backend)
        setattr(request.spec.image, field, image_id)
        self.assert_refused(connection, request, NOT_FOUND, "IMAGE_NOT_FOUND", field)

    def test_kernel_is_no_root_disk(self, connection: Connection, backend: str) -> None:
        request = good_request(backend)
        request.spec.image.image_id = "kernel"
        self.assert_refused(connection, request, INVALID, "IMAGE_NOT_A_DISK", "image_id")

    def test_nothing_to_boot_from_is_refused(self, connection: Connection, backend: str) -> None:
        request = good_request(backend)
        request.spec.ClearField("image")
        self.assert_refused(connection, request, INVALID, "NO_BOOT_SOURCE", "image_id")

    def test_root_disk_smaller_than_its_image_is_refused(
        self, connection: Connection, backend: str, store: Path
    ) -> None:
        (store / "large.qcow2").write_bytes(qcow2_header(virtual_size=3 << 30))
        request = good_request(backend)
        request.spec.image.image_id = "large"
        request.spec.flavor.root_disk_gib = 2
        with refused(INVALID, "ROOT_DISK_TOO_SMALL") as refusal:
            request.validate_only = True
            connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
        assert refusal.fields == ["spec.flavor.root_disk_gib"]

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("backed.qcow2", qcow2_header(backing_file=b"/etc/passwd")),
            ("data-file.qcow2", qcow2_header(incompatible=1 << 2)),
            ("cut.qcow2", qcow2_header()[:76]),
            ("empty.qcow2", b""),
            ("text.qcow2", b"not a disk at all, but long enough to hold a header" * 4),
        ],
        ids=["backing file", "data file", "cut off", "empty", "text"],
    )
    def test_hostile_qcow2_is_refused(
        self, connection: Connection, backend: str, store: Path, name: str, content: bytes
    ) -> None:
        (store / name).write_bytes(content)
        request = good_request(backend)
        request.spec.image.image_id = name.removesuffix(".qcow2")
        self.assert_refused(connection, request, FAILED_PRECONDITION, "IMAGE_REFUSED", "image_id")

    @pytest.mark.parametrize("field", ["image_id", "kernel_image_id", "ramdisk_image_id"])
    @pytest.mark.parametrize("kind", ["symlink", "dangling", "fifo"])
    def test_what_is_no_regular_file_is_refused_without_a_wait(
        self, connection: Connection, backend: str, store: Path, field: str, kind: str
    ) -> None:
        path = store / ("trap.raw" if field == "image_id" else "trap")
        if kind == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to("/etc/passwd" if kind == "symlink" else "/nowhere")
        request = good_request(backend)
        setattr(request.spec.image, field, "trap")
        started = time.monotonic()
        self.assert_refused(connection, request, INVALID, "IMAGE_UNUSABLE", field)
        assert time.monotonic() - started < 20

    def assert_refused(
        self,
        connection: Connection,
        request: pb.SpawnInstanceRequest,
        code: grpc.StatusCode,
        reason: str,
        field: str,
    ) -> None:
        """Refused as a check and as a spawn, which makes nothing."""
        request.validate_only = True
        with refused(code, reason) as refusal:
            connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
        assert refusal.fields == [f"spec.image.{field}"]
        assert_fit_for_a_caller(refusal)
        request.validate_only = False
        request.request_id = uuid.uuid4().hex
        operation = connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
        ended = finished(connection, operation)
        assert ended.state == operation_pb2.OPERATION_STATE_FAILED
        assert (ended.error.code, ended.error.reason) == (code.value[0], reason)
        assert [blocker.field for blocker in ended.error.blockers] == [f"spec.image.{field}"]
        assert list(ended.steps) == []
        on_disk = pb.CheckInstanceOnDiskRequest(instance_id=request.instance_id)
        assert not connection.instances.CheckInstanceOnDisk(on_disk, timeout=TIMEOUT_S).on_disk
