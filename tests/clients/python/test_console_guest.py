"""`virtrpc console` before a real guest: its shell in tmux, its screen in a viewer of VNC."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from virtrpc.v1 import spec_pb2

from tests.clients.python.tmux import Tmux
from tests.daemon import DaemonProcess
from tests.instances import console_until, small_spec, spawned
from tests.rfb import RETURN, Viewer

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(180)]
NOTE = re.compile(r"\n\[[^\n]*\]\n")


@pytest.fixture(scope="module")
def host(
    short_folder: Callable[[], Path], guest_images: Callable[[DaemonProcess], None]
) -> Iterator[DaemonProcess]:
    """A daemon with a guest "web-1" that counts on its serial port and has a screen."""
    with DaemonProcess(short_folder(), backend="libvirt") as served:
        guest_images(served)
        served.start()
        spec = small_spec(backend="libvirt", name="web-1")
        spec.image.kernel_args += " virtrpc.counter=1"
        spec.machine.graphics = spec_pb2.GRAPHICS_TYPE_VNC
        with served.connect() as connection, spawned(connection, spec) as instance_id:
            console_until(connection, instance_id, b"root login on 'tty1'")
            yield served


def console(host: DaemonProcess, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "virtrpc.cli", "--address", host.address, "console", *arguments]


def test_terminal_outlasts_the_daemon_and_shows_everything_once(
    host: DaemonProcess, short_folder: Callable[[], Path]
) -> None:
    attach = shlex.join(console(host, "attach", "web-1", "--tail", "1M"))
    command = ["sh", "-c", f"{attach}; echo exit $?; stty -a | grep -ow icanon; exec cat"]
    with Tmux(short_folder(), command) as window:
        window.until("attached, detach with ^]")
        window.type("echo $((6*7))-before")
        window.until("\n42-before\n")
        for number, end in enumerate((host.kill, host.stop)):
            end()
            window.until("[connection lost, trying again")
            host.start()
            # What is typed while there is no connection is lost: a count shows that there is one.
            window.until_another("count ")
            window.type(f"echo $((7*7))-after-{number}")
            window.until(f"\n49-after-{number}\n")
        window.resize(60, 20)
        window.type("echo $((8*8))-smaller")
        window.until("\n64-smaller\n")
        window.press("C-]")
        window.until("[detached]")
        shown = window.until("\nexit 0\nicanon\n")
    numbers = [int(number) for number in re.findall(r"count (\d+)$", NOTE.sub("", shown), re.M)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_viewer_sees_the_guest_s_screen_and_presses_its_keys(host: DaemonProcess) -> None:
    command = console(host, "vnc", "web-1")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tunnel:
        assert tunnel.stdout is not None
        address, _, port = tunnel.stdout.readline().strip().partition(":")
        with Viewer((address, int(port))) as viewer, Viewer((address, int(port))) as other:
            assert viewer.version == b"RFB 003.008\n"
            assert (viewer.width, viewer.height, viewer.name) == (720, 400, "QEMU (web-1)")
            before = viewer.lit()
            assert before > 1000
            for key in b"mmmmmmmm":
                viewer.press(key)
            viewer.press(RETURN)
            viewer.until_lit(more_than=before + 200)
            other.until_lit(more_than=before + 200)
        tunnel.terminate()
