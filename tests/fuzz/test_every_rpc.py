"""Whatever is sent to whatever RPC: a typed answer, a daemon that lives, nothing left behind."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from virtrpc.v1 import host_pb2, instance_pb2, operation_pb2

from service.verbs import Verb, all_verbs
from tests.daemon import DaemonProcess
from tests.fuzz.messages import INSTANCE_IDS, requests
from tests.instances import TIMEOUT_S, small_spec
from tests.refusals import DOMAIN, Refusal, refusal_of

VERBS = {verb.name: verb for verb in all_verbs().values()}
CALL_S = 2.0
# An answer of these says that the daemon did not understand itself.
DEFECTS = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS}
# What the transport says without the daemon's word: no ErrorInfo to expect.
OF_THE_TRANSPORT = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
FUZZED = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                           HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip


class Target:
    """A daemon of the fake, and calls of its verbs in raw bytes."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        self.connection = daemon.connect()

    def answer(self, verb: Verb, sent: bytes) -> Refusal | None:
        """How the daemon refuses a request; None: it does not. A stream is left at its first."""
        try:
            self._call(verb, sent)
        except grpc.RpcError as error:
            return refusal_of(error)
        return None

    def _call(self, verb: Verb, sent: bytes) -> None:
        channel: Any = self.connection.channel
        way = ("stream" if verb.client_streaming else "unary",
               "stream" if verb.server_streaming else "unary")  # fmt: skip
        sending = iter([sent, sent]) if verb.client_streaming else sent
        answer = getattr(channel, "_".join(way))(verb.path)(sending, timeout=CALL_S)
        if verb.server_streaming:
            next(answer, None)
            answer.cancel()


@pytest.fixture(scope="module")
def target(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[Target]:
    """The daemon that all messages are sent to; at the end all is taken away, and is gone."""
    with DaemonProcess(short_folder(), backend="fake", arguments=["--grace=1"]) as daemon:
        guest_images(daemon)
        fuzzed = Target(daemon.start())
        for instance_id in INSTANCE_IDS[:2]:
            spec = small_spec(backend="fake", name=f"fuzzed-{instance_id[:8]}")
            request = instance_pb2.SpawnInstanceRequest(instance_id=instance_id, spec=spec)
            fuzzed.connection.instances.SpawnInstance(request, timeout=TIMEOUT_S)
        yield fuzzed
        _nothing_is_left(fuzzed)
        fuzzed.connection.close()


def _nothing_is_left(target: Target) -> None:
    instances = target.connection.instances
    everything = instance_pb2.ListInstancesRequest(include_soft_deleted=True)
    for instance in instances.ListInstances(everything, timeout=TIMEOUT_S).instances:
        destroy = instance_pb2.DestroyInstanceRequest(
            instance_id=instance.instance_id, destroy_disks=True
        )
        instances.DestroyInstance(destroy, timeout=TIMEOUT_S)
        cleanup = instance_pb2.CleanupInstanceRequest(
            instance_id=instance.instance_id, destroy_disks=True
        )
        instances.CleanupInstance(cleanup, timeout=TIMEOUT_S)
    assert not instances.ListInstances(everything, timeout=TIMEOUT_S).instances
    listed = operation_pb2.ListOperationsRequest(states=[operation_pb2.OPERATION_STATE_RUNNING])
    assert not target.connection.operations.ListOperations(listed, timeout=TIMEOUT_S).operations
    assert "Traceback" not in target.daemon.log()


def judge(target: Target, verb: Verb, sent: bytes) -> None:
    """The answer is one that the contract knows, and the daemon still answers others."""
    refusal = target.answer(verb, sent)
    if refusal is not None:
        assert refusal.code not in DEFECTS, refusal
        if refusal.code not in OF_THE_TRANSPORT:
            assert (refusal.domain, bool(refusal.reason)) == (DOMAIN, True), refusal
            assert refusal.message.isprintable(), refusal
            assert len(refusal.message) <= 1024
    target.connection.hosts.GetHost(host_pb2.GetHostRequest(), timeout=TIMEOUT_S)


@pytest.mark.parametrize("name", sorted(VERBS))
@FUZZED
@given(data=st.data())
def test_any_message_gets_a_typed_answer(target: Target, name: str, data: st.DataObject) -> None:
    verb = VERBS[name]
    judge(target, verb, data.draw(requests(verb.request_class)).SerializeToString())


@pytest.mark.parametrize("name", sorted(VERBS))
@settings(FUZZED, max_examples=5)
@example(sent=b"\x0b" * 20_000)  # groups in groups without end
@example(sent=b"\x0a\xff\xff\xff\xff\x07")  # two gigabytes are announced
@given(sent=st.binary(max_size=200))
def test_any_bytes_get_a_typed_answer(target: Target, name: str, sent: bytes) -> None:
    judge(target, VERBS[name], sent)
