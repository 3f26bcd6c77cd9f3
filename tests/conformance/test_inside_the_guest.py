"""What the guest itself has of it: a file, a password, a share. One guest for all, on real QEMU."""

from collections.abc import Iterator

import grpc
import pytest
from virtrpc.v1 import instance_pb2 as pb

from tests.conformance.conftest import boot_anew, console_end, state_of
from tests.daemon import Connection, DaemonProcess
from tests.guest_console import Type, keyboard
from tests.instances import agent_answers, console_until, small_spec, spawned
from tests.refusals import refused

pytestmark = pytest.mark.parametrize("backend", ["libvirt"], indirect=True)
NAME = "inside"
CANARY = "correct horse"
SHARE_ID = "5a3e0000-0000-4000-8000-000000000002"
OTHER_ID = "5a3e0000-0000-4000-8000-000000000006"


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


def test_injected_file_is_its_owner_s_alone_and_one_that_is_there_stays_so(
    connection: Connection, daemon: DaemonProcess, inside: str
) -> None:
    def inject(path: str) -> None:
        request = pb.InjectFileRequest(instance_id=inside, path=path, content=b"x" * 100_000)
        connection.instances.InjectFile(request)

    tell = "stat -c 'is %a %u %s %n' /tmp/it/*; ls -A /tmp/it | wc -l; echo e''nd"
    with keyboard(daemon, NAME) as type_:
        answer(connection, inside, type_, "mkdir -p /tmp/it/sub; echo e''nd", b"end\r\n")
        inject("/tmp/it/a b'c\"")
        seen = answer(connection, inside, type_, tell, b"end\r\n")
        assert b"is 600 0 100000 /tmp/it/a b'c\"\r\n" in seen
        change = "ln -s a* /tmp/it/link; chmod 640 /tmp/it/a*; chown 7 /tmp/it/a*; echo e''nd"
        answer(connection, inside, type_, change, b"end\r\n")
        inject("/tmp/it/link")
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "AGENT_REFUSED"):
            inject("/tmp/it/sub")
        seen = answer(connection, inside, type_, tell, b"end\r\n")
    assert b"is 640 7 100000 /tmp/it/a b'c\"\r\n" in seen
    assert b"\r\n3\r\n" in seen, "the file, the link and the folder: nothing half written"


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
        # One more while it runs, which it may only read.
        mount.share_id, mount.tag, mount.read_only = OTHER_ID, "papers", True
        assert len(connection.instances.MountShare(mount).instance.shares) == 2
        script = "cat /tmp/ro/from-host; echo no >/tmp/ro/from-host; mount -o remount,rw /tmp/ro"
        script = f"mount -t virtiofs papers /tmp/ro && {script}; touch /tmp/ro/new; umount /tmp/ro"
        script = f"mkdir /tmp/ro; {script}"
        seen = answer(connection, inside, type_, f"{script}; echo e''nd", b"end\r\n")
        assert b"host says hello" in seen
        assert seen.count(b"Read-only file system") == 2
        assert [path.name for path in sorted(folder.iterdir())] == ["from-guest", "from-host"]
    take_away = pb.UmountShareRequest(instance_id=inside, share_id=OTHER_ID)
    connection.instances.UmountShare(take_away)
    assert [one.tag for one in state_of(connection, inside).shares] == ["docs"]
    connection.instances.PowerOffInstance(off)
    umount = pb.UmountShareRequest(instance_id=inside, share_id=SHARE_ID)
    assert not connection.instances.UmountShare(umount).still_used
    connection.instances.PowerOnInstance(pb.PowerOnInstanceRequest(instance_id=inside))
