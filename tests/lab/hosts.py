"""Two hosts on one machine: each in a network of its own, with its libvirtd and its daemon."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.authority import CLIENT, SERVER, Authority
from tests.daemon import DaemonProcess
from tests.images import place_guest_images
from tests.lab.network import ADDRESSES, Wire
from tests.libvirtd import LibvirtdHost
from tests.migrations import Host

PORT = 50051
_DAEMON = (sys.executable, "-m", "tests.lab.held_daemon")
# The daemon's own main says so too, but what wraps it has imported gRPC by then.
_ENVIRONMENT = {
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
}


@dataclass(frozen=True)
class LabHost(Host):
    """A host of the lab."""

    libvirtd: LibvirtdHost
    address: str
    gates: Path
    """Where its daemon is held (tests/lab/gates.py)."""

    def run(self, *command: str, given: str = "") -> str:
        """What a command prints that is run in the host."""
        words = (*self.libvirtd.inside, *command)
        done = subprocess.run(words, capture_output=True, text=True, check=False, input=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def virsh(self, *arguments: str, given: str = "") -> str:
        """What virsh prints."""
        return self.run("virsh", "--quiet", *arguments, given=given)

    def machines(self, instance_id: str) -> list[psutil.Process]:
        """The QEMUs of an instance, known to libvirtd or not."""
        found = []
        for process in self.libvirtd.guests:
            with suppress(psutil.NoSuchProcess):
                if instance_id in process.cmdline():
                    found.append(process)
        return found


@dataclass(frozen=True)
class Lab:
    """Both hosts, and the wire between them."""

    wire: Wire
    hosts: tuple[LabHost, LabHost]
    volumes: Path
    """Directory of volumes that both see."""


@contextmanager
def lab(make_folder: Callable[[], Path], *, shared: bool) -> Iterator[Lab]:
    """Both hosts, running; `shared`: they see the same directory of instances.

    Their daemons speak by mTLS in that one, and in the other as `--peer-network` lets them.
    """
    with ExitStack() as stack:
        wire = Wire()
        stack.callback(wire.close)
        instances = make_folder() / "instances" if shared else None
        volumes, authority = make_folder(), Authority()
        hosts = [
            stack.enter_context(
                _host(
                    make_folder,
                    wire=wire,
                    number=number,
                    instances=instances,
                    volumes=volumes,
                    certificates=_of_qemu(authority, number),
                    authority=authority if shared else None,
                )
            )
            for number in (0, 1)
        ]
        yield Lab(wire, (hosts[0], hosts[1]), volumes)


@contextmanager
def _host(
    make_folder: Callable[[], Path],
    *,
    wire: Wire,
    number: int,
    instances: Path | None,
    volumes: Path,
    certificates: Mapping[str, bytes],
    authority: Authority | None,
) -> Iterator[LabHost]:
    name, address = f"host-{'ab'[number]}", ADDRESSES[number]
    libvirtd = LibvirtdHost(
        make_folder(),
        name=name,
        network=wire.namespaces[number],
        address=address,
        certificates=certificates,
    )
    try:
        libvirtd.start()
        gates = make_folder()
        folder = make_folder()
        reached = _by_tls(folder, address, authority) if authority else _plainly(address)
        daemon = DaemonProcess(
            folder,
            backend="libvirt",
            program=(*libvirtd.inside, *_DAEMON, str(gates)),
            arguments=[*_arguments(address, instances), f"--volume-dir={volumes}", *reached],
            environment=_ENVIRONMENT,
        )
        place_guest_images(daemon.image_dir)
        with daemon.start(), daemon.connect() as connection:
            uri = f"{'grpcs' if authority else 'grpc'}://{address}:{PORT}"
            yield LabHost(daemon, connection, uri, libvirtd, address, gates)
    finally:
        libvirtd.close()


def _of_qemu(authority: Authority, number: int) -> Mapping[str, bytes]:
    """What QEMU shows of itself, at either end of a transfer, and believes."""
    issued = authority.issue(addresses=[ADDRESSES[number]], usages=[SERVER, CLIENT])
    ends = {f"{end}-cert.pem": issued.cert for end in ("server", "client")}
    keys = {f"{end}-key.pem": issued.key for end in ("server", "client")}
    return {"ca-cert.pem": authority.pem, **ends, **keys}


def _arguments(address: str, instances: Path | None) -> list[str]:
    shared = [f"--instance-dir={instances}"] if instances is not None else []
    return [
        "--libvirt-uri=qemu:///system",
        f"--hypervisor-uri=qemu+tcp://{address}/system",
        f"--migration-uri=tcp://{address}",
        *shared,
    ]


def _plainly(address: str) -> list[str]:
    return [f"--listen={address}:{PORT}", "--insecure", "--peer-network=10.71.0.0/24"]


def _by_tls(folder: Path, address: str, authority: Authority) -> list[str]:
    issued = authority.host(f"spiffe://lab/host/{address}", address=address)
    cert, key, ca = issued.write(folder)
    return [
        f"--listen=grpcs://{address}:{PORT}",
        *(f"--tls-cert={cert}", f"--tls-key={key}", f"--tls-ca={ca}"),
        "--role-migrator=spiffe://lab/host/*",
    ]
