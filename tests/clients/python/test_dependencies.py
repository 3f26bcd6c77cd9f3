"""The base library needs grpcio and protobuf alone; the command line says what it lacks."""

import subprocess
import sys

# Finders that make packages look as if they were not installed.
HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"click", "rich", "yaml"} or name.startswith("google.rpc"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
"""
IMPORT_ALL = """
import importlib, pkgutil, virtrpc, virtrpc.v1
for package in (virtrpc, virtrpc.v1):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if module.name != "virtrpc.cli":
            importlib.import_module(module.name)
print(virtrpc.Client, virtrpc.AsyncClient, virtrpc.default_socket())
"""
MAIN = "import virtrpc.cli; virtrpc.cli.main()"
LIGHT = """
import sys, virtrpc.address
assert "grpc" not in sys.modules and "google.protobuf" not in sys.modules, "heavy"
"""


def python(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_base_imports_without_the_extra() -> None:
    done = python(HIDE + IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    assert "AsyncClient" in done.stdout


def test_the_address_alone_loads_no_grpc() -> None:
    done = python(LIGHT)
    assert done.returncode == 0, done.stderr


def test_the_command_line_without_its_extra_says_what_to_install() -> None:
    done = python(HIDE + MAIN)
    assert done.returncode == 1
    assert done.stderr == "virtrpc: the command line needs click: pip install 'virtrpc[cli]'\n"
