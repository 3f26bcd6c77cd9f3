"""What libvirt has noted of machines is read; no machine holds up the start, whatever it says."""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Thread

import pytest

from backends.libvirt.cut_off import Found, make_good
from backends.libvirt.lost_removals import stand_ins
from backends.libvirt.status_files import read_status

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\n'
STATUS = """
<domstatus state="running" pid="1">
  <monitor path="{monitor}" type="unix"/>
  <devices>
    <device alias="net0"/><device alias="net1"/><device alias="fs0"/><device alias="disk0"/>
  </devices>
  <domain type="qemu"><uuid/><devices>
    <disk type="file"><alias name="disk0"/></disk>
    <filesystem><driver type="virtiofs"/><alias name="fs0"/></filesystem>
    <interface type="user"><alias name="net0"/></interface>
    <interface type="hostdev"><alias name="net1"/></interface>
    <interface type="user"><alias name="net2"/></interface>
  </devices></domain>
</domstatus>
"""


def test_stand_ins_are_for_what_libvirt_has_seen_and_would_remove(tmp_path: Path) -> None:
    path = tmp_path / "web.xml"
    path.write_text(STATUS.format(monitor="/run/web.sock"), encoding="utf-8")
    noted = read_status(path)
    assert noted is not None
    assert (noted.name, noted.monitor) == ("web", "/run/web.sock")
    found = {alias: one.arguments["id"] for alias, one in stand_ins(noted).items()}
    assert found == {"net0": "hostnet0", "fs0": "chr-vu-fs0"}


@pytest.mark.parametrize("text", ["", "<domstatus>", "\0", "<domstatus/>"])
def test_status_that_says_nothing_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "run/qemu").mkdir(parents=True)
    path = tmp_path / "run/qemu/web.xml"
    path.write_text(text, encoding="utf-8")
    assert read_status(path) is None
    assert make_good(tmp_path) == Found()


def test_whatever_monitors_say_the_start_goes_on(short_folder: Callable[[], Path]) -> None:
    root = short_folder()
    (root / "run/qemu").mkdir(parents=True)
    agreed = GREETING + b'{"return": {}}\n'
    said = [b"", b"", b"hello\n", GREETING, agreed + b'{"return": 1}\n', b"[" * 500_000 + b"\n",
            agreed + b'{"event": "RESET"}\n' * 60_000, b"x" * (2 << 20)]  # fmt: skip
    with ExitStack() as open_sockets:
        for number, data in enumerate(said):
            path = root / str(number)
            status = STATUS.format(monitor=path).replace('pid="1"', f'pid="{number}"')
            status = status.replace("<uuid/>", f"<uuid>{number}</uuid>")
            (root / f"run/qemu/{number}.xml").write_text(status, encoding="utf-8")
            listener = open_sockets.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
            Thread(target=say, args=(listener, data), daemon=True).start()
        (root / "run/qemu/dead.xml").write_text(STATUS.format(monitor=root / "none"))
        began = time.monotonic()
        doubtful = make_good(root).doubtful
        assert time.monotonic() - began < 4
    assert doubtful == {str(number): number for number in range(len(said))}


def say(listener: socket.socket, data: bytes) -> None:
    """Speaks to one client, and then says no more until it goes."""
    client, _ = listener.accept()
    with client, suppress(OSError):
        client.sendall(data)
        while client.recv(1 << 16):
            pass
