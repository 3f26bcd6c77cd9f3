"""The stubs serve clients on the oldest runtimes that a maintained OpenStack pins."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.conftest import MakeDaemon

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cache" / "oldest-runtime"
PINS = ("protobuf==5.29.3", "grpcio==1.70.0")
PROGRAM = """
import importlib, pkgutil, sys
import google.protobuf, grpc
assert (google.protobuf.__version__, grpc.__version__) == ("5.29.3", "1.70.0")
import virtrpc.v1
for module in pkgutil.iter_modules(virtrpc.v1.__path__, "virtrpc.v1."):
    importlib.import_module(module.name)
from virtrpc.v1 import host_pb2, host_pb2_grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = host_pb2_grpc.HostServiceStub(channel)
    reply = stub.GetCapabilities(host_pb2.GetCapabilitiesRequest(), timeout=20)
print(reply.backend, len(reply.capabilities))
"""


@pytest.fixture(scope="module")
def oldest_python() -> Path:
    """An interpreter with nothing but the pinned runtimes; made at first use."""
    python = FOLDER / "bin" / "python"
    stamp = FOLDER / "pins.txt"
    if not stamp.exists() or stamp.read_text() != "\n".join(PINS):
        venv.create(FOLDER, with_pip=True, clear=True)
        command = [python, "-m", "pip", "install", "--quiet", *PINS]
        subprocess.run(command, check=True, timeout=90)  # type: ignore[arg-type]
        stamp.write_text("\n".join(PINS))
    return python


def test_stubs_import_and_call_a_daemon_on_the_oldest_runtimes(
    oldest_python: Path, make_daemon: MakeDaemon
) -> None:
    daemon = make_daemon().start()
    completed = subprocess.run(
        [oldest_python, "-W", "error", "-c", PROGRAM, daemon.address],
        env={**os.environ, "PYTHONPATH": str(ROOT / "clients" / "python")},
        cwd=daemon.folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert completed.returncode == 0, completed.stderr
    name, count = completed.stdout.split()
    assert name == "fake"
    assert int(count) > 100


def test_stubs_need_nothing_beyond_grpcio_and_protobuf() -> None:
    """The options of buf.validate travel as bytes: their package is no dependency."""
    program = "import virtrpc.v1.instance_pb2, sys; print('buf' in sys.modules)"
    completed = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert completed.stdout.strip() == "False"
