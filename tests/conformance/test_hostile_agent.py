"""An agent that floods or is silent, and a guest that will not restart: real QEMU."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1 import operation_pb2

from tests.conformance.conftest import state_of
from tests.daemon import Connection, DaemonProcess
from tests.events_seen import cursor_now, events_after
from tests.guest_shell import GuestShell
from tests.instances import agent_answers, small_spec, spawned
from tests.refusals import refused

pytestmark = pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
ODD = "p:a\"s's $x \\ é#"
PORT = "3<>/dev/virtio-ports/org.qemu.guest_agent.0"


@pytest.fixture(scope="module")
def guest(daemon: DaemonProcess, backend: str) -> Iterator[tuple[Connection, str, GuestShell]]:
    """A guest that has booted, with a shell; it takes no notice of its power button."""
    spec = small_spec(backend=backend)
    spec.image.kernel_args += " virtrpc.noacpi=1"
    with daemon.connect() as connection, spawned(connection, spec) as instance_id:
        agent_answers(connection, instance_id)
        shell = GuestShell(connection, instance_id)
        yield connection, instance_id, shell
        shell.close()


def password(instance_id: str) -> pb.SetAdminPasswordRequest:
    return pb.SetAdminPasswordRequest(instance_id=instance_id, password=ODD)


def test_password_may_have_any_character(guest: tuple[Connection, str, GuestShell]) -> None:
    connection, instance_id, _ = guest
    connection.instances.SetAdminPassword(password(instance_id))


def test_silent_agent_is_told_from_none_and_a_frozen_guest_is_thawed_when_it_speaks(
    guest: tuple[Connection, str, GuestShell],
) -> None:
    connection, instance_id, shell = guest
    freeze = pb.QuiesceInstanceRequest(instance_id=instance_id)
    freeze.timeout.FromSeconds(1)
    cursor = cursor_now(connection)
    assert connection.instances.QuiesceInstance(freeze).filesystems == 1
    shell.run("killall -STOP qemu-ga")
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED, "AGENT_TIMEOUT"):
        connection.instances.SetAdminPassword(password(instance_id))
    assert state_of(connection, instance_id).HasField("thaw_at"), "it is asked again and again"
    shell.run("killall -CONT qemu-ga")
    events_after(
        connection,
        cursor,
        until=lambda event: (
            event.operation.verb == "UnquiesceInstance"
            and event.operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED
        ),
    )
    assert not state_of(connection, instance_id).HasField("thaw_at")


def test_flooding_agent_is_bounded_in_time(guest: tuple[Connection, str, GuestShell]) -> None:
    connection, instance_id, shell = guest
    shell.run("killall -KILL qemu-ga; sleep 1")
    shell.run(f"yes '{{}}' {PORT} >&3 2>/dev/null & true")
    before = time.monotonic()
    with pytest.raises(grpc.RpcError) as refusal:
        connection.instances.SetAdminPassword(password(instance_id), timeout=60)
    assert refusal.value.code() in (PRECONDITION, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert time.monotonic() - before < 30
    assert state_of(connection, instance_id).power_state


def test_reboot_that_the_guest_ignores_is_forced_by_a_poll(
    guest: tuple[Connection, str, GuestShell],
) -> None:
    connection, instance_id, _ = guest
    soft = pb.RebootInstanceRequest(instance_id=instance_id, type=pb.REBOOT_TYPE_SOFT)
    soft.timeout.FromSeconds(3600)
    poll = pb.PollRebootingInstancesRequest()
    poll.timeout.FromSeconds(3600)
    with ThreadPoolExecutor(1) as pool:
        rebooting = pool.submit(connection.instances.RebootInstance, soft, timeout=60)
        assert list(connection.instances.PollRebootingInstances(poll).instance_ids) == []
        poll.timeout.FromSeconds(0)
        while not (stuck := connection.instances.PollRebootingInstances(poll).instance_ids):
            assert not rebooting.done()
        assert list(stuck) == [instance_id]
        assert rebooting.result().forced
