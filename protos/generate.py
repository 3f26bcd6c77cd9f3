"""Generates the Python stubs of the contract, and says whether they are stale.

The shipped stubs are made by grpcio-tools 1.70.0, so that the oldest supported
runtimes (protobuf 5.29.3, grpcio 1.70.0) can import them, in a virtual
environment of their own: its protobuf is older than the daemon's.

`buf/validate/validate.proto` is only needed while compiling. Before the stubs
are written its import is taken out of the descriptors; the rules stay in the
field options as bytes, where a validator finds them by extension number. So
the client package depends on grpcio and protobuf alone.

    python protos/generate.py            write the stubs
    python protos/generate.py --check    exit 1 when they are stale
    python protos/generate.py --include  print the folder of validate.proto
"""

import argparse
import filecmp
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = ROOT / "clients" / "python"
CACHE = ROOT / ".cache" / "protoc"
TOOLS = ("grpcio-tools==1.70.0", "mypy-protobuf==3.6.0", "setuptools<81")
# The last sdist that carries validate.proto itself.
VALIDATE_SDIST = "protovalidate==1.2.0"
STRIP = """
import sys
from google.protobuf.descriptor_pb2 import FileDescriptorSet
whole, stripped = FileDescriptorSet(), FileDescriptorSet()
whole.ParseFromString(open(sys.argv[1], "rb").read())
for file in whole.file:
    if not file.name.startswith("buf/"):
        kept = [name for name in file.dependency if not name.startswith("buf/")]
        stripped.file.add().CopyFrom(file)
        stripped.file[-1].ClearField("dependency")
        stripped.file[-1].dependency.extend(kept)
open(sys.argv[2], "wb").write(stripped.SerializeToString())
"""


def run(*command: str | Path) -> None:
    """Runs a tool; its failure is ours."""
    subprocess.run([str(word) for word in command], check=True)


def tool_python() -> Path:
    """Interpreter of the tools' environment, made at first use."""
    python = CACHE / "venv" / "bin" / "python"
    stamp = CACHE / "venv" / "tools.txt"
    if not stamp.exists() or stamp.read_text() != "\n".join(TOOLS):
        venv.create(CACHE / "venv", with_pip=True, clear=True)
        run(python, "-m", "pip", "install", "-q", *TOOLS)
        stamp.write_text("\n".join(TOOLS))
    return python


def include_folder() -> Path:
    """Folder that holds buf/validate/validate.proto, fetched at first use."""
    include = CACHE / "include"
    if not (include / "buf/validate/validate.proto").exists():
        run(tool_python(), "-m", "pip", "download", "-q", "--no-deps",
            "--no-binary", "protovalidate", "-d", CACHE, VALIDATE_SDIST)  # fmt: skip
        with tarfile.open(next(CACHE.glob("protovalidate-*.tar.gz"))) as archive:
            member = next(
                m for m in archive if m.name.endswith("proto/buf/validate/validate.proto")
            )
            source = archive.extractfile(member)
            assert source is not None  # noqa: S101 - a regular file
            target = include / "buf/validate/validate.proto"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read())
    return include


def names_of_protos() -> list[str]:
    """Files of the contract, as they import each other."""
    return sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("virtrpc/**/*.proto"))


def describe(out: Path) -> None:
    """Writes the descriptors of the contract and of what it imports, comments and all."""
    run(tool_python(), "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"-I{include_folder()}",
        "--include_imports", "--include_source_info", f"--descriptor_set_out={out}",
        *names_of_protos())  # fmt: skip


def generate(out: Path) -> None:
    """Writes all stubs below `out`."""
    python, names = tool_python(), names_of_protos()
    with tempfile.TemporaryDirectory() as folder:
        whole, stripped = Path(folder) / "whole.binpb", Path(folder) / "stripped.binpb"
        describe(whole)
        run(python, "-c", STRIP, whole, stripped)
        plugins = [f"--plugin=protoc-gen-{name}={python.parent / f'protoc-gen-{name}'}"
                   for name in ("mypy", "mypy_grpc")]  # fmt: skip
        run(python, "-m", "grpc_tools.protoc", f"--descriptor_set_in={stripped}", *plugins,
            *(f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")),
            *names)  # fmt: skip
    (out / "virtrpc/v1/__init__.py").write_text('"""Generated stubs of virtrpc.v1."""\n')


def stale(fresh: Path, kept: Path) -> list[str]:
    """Names of the files in which a folder differs from a freshly made one."""
    comparison = filecmp.dircmp(fresh, kept, ignore=["__pycache__"])
    _, differ, errors = filecmp.cmpfiles(
        comparison.left, comparison.right, comparison.common_files, shallow=False
    )
    return sorted({*comparison.left_only, *comparison.right_only, *differ, *errors})


def main() -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--include", action="store_true")
    arguments = parser.parse_args()
    if arguments.include:
        print(include_folder())
        return 0
    if not arguments.check:
        generate(STUBS)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        names = stale(Path(folder) / "virtrpc/v1", STUBS / "virtrpc/v1")
    if names:
        print("stale stubs, run `make protos`:", *names, sep="\n  ", file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
