"""What the guest itself has of it: a file, a password, a share. One guest for all, on real QEMU."""

from collections.abc import Iterator

import pytest
from virtrpc.v1 import instance_pb2 as pb

from tests.conformance.conftest import boot_anew, console_end
from tests.daemon import Connection, DaemonProcess
from tests.guest_console import Type, keyboard
from tests.instances import agent_answers, console_until, small_spec, spawned

pytestmark = pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
NAME = "inside"
CANARY = "correct horse"
SHARE_ID = "5a3e0000-0000-4000-8000-000000000002"


@pytest.fixture(scope="module")
def inside(daemon: DaemonProcess, backend: str) -> Iterator[str]:
    """A guest that has booted, with an agent that answers."""
    spec = small_spec(backend=backend, name=NAME)
    with daemon.connect() as connection, spawned(connection, spec) as instance_id:
        agent_answers(connection, instance_id)
        yield instance_id


def answer(connection: Connection, instance_id: str, type_: Type, line: str, ends: bytes) -> bytes:
    """What the console printed after a line was typed, until it said `ends`."""
    offset = console_end(connection, instance_id)
    type_(f"{line}\n")
    return console_until(connection, instance_id, ends, offset=offset)


def test_injected_file_is_there(connection: Connection, daemon: DaemonProcess, inside: str) -> None:
    content = b"it is\nhere\n"
    request = pb.InjectFileRequest(instance_id=inside, path="/root/note", content=content)
    connection.instances.InjectFile(request)
    with keyboard(daemon, NAME) as type_:
        seen = answer(connection, inside, type_, "cat /root/note; echo e''nd", b"end\r\n")
    assert b"it is\r\nhere\r\nend" in seen


def test_password_that_was_set_opens_the_console_and_another_does_not(
    connection: Connection, daemon: DaemonProcess, inside: str
) -> None:
    request = pb.SetAdminPasswordRequest(instance_id=inside, password=CANARY)
    connection.instances.SetAdminPassword(request)
    with keyboard(daemon, NAME) as type_:
        answer(connection, inside, type_, "exit", b"login: ")
        answer(connection, inside, type_, "root", b"Password: ")
        answer(connection, inside, type_, "wrong", b"login: ")
        answer(connection, inside, type_, "root", b"Password: ")
        seen = answer(connection, inside, type_, CANARY, b"# ")
        assert b"incorrect" not in seen
        assert b"uid=0" in answer(connection, inside, type_, "id", b"# ")
    assert CANARY not in daemon.log()


def test_guest_reads_and_writes_a_share(
    connection: Connection, daemon: DaemonProcess, inside: str
) -> None:
    folder = daemon.sources / "shared"
    folder.mkdir()
    (folder / "from-host").write_text("host says hello\n")
    off = pb.PowerOffInstanceRequest(instance_id=inside)
    off.timeout.FromSeconds(0)
    connection.instances.PowerOffInstance(off)
    mount = pb.MountShareRequest(
        instance_id=inside, share_id=SHARE_ID, tag="docs", path=str(folder)
    )
    connection.instances.MountShare(mount)
    end = console_end(connection, inside)
    boot_anew(connection, inside)
    console_until(connection, inside, b":~# ", offset=end)  # what is typed before is lost
    script = "mount -t virtiofs docs /mnt && cat /mnt/from-host; echo hi >/mnt/from-guest; sync"
    with keyboard(daemon, NAME) as type_:
        seen = answer(connection, inside, type_, f"{script}; echo e''nd", b"end\r\n")
    assert b"host says hello" in seen
    assert (folder / "from-guest").read_text() == "hi\n"
    connection.instances.PowerOffInstance(off)
    umount = pb.UmountShareRequest(instance_id=inside, share_id=SHARE_ID)
    assert not connection.instances.UmountShare(umount).still_used
    connection.instances.PowerOnInstance(pb.PowerOnInstanceRequest(instance_id=inside))
