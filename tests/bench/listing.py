"""ListInstances of 1,000, in turns with libvirt's own ways to the same domains.

The domains are off, in a libvirtd of the bench's own; the daemon is its client
like the others.
"""

import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import libvirt
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.instance_pb2 import InstanceView

from tests.bench.bare_grpc import BareGrpc
from tests.bench.domains import images_of, xml_of
from tests.bench.places import guest_spec, workspace
from tests.bench.private_libvirtd import PrivateLibvirtd
from tests.bench.report import Row
from tests.bench.timing import Call, medians
from tests.daemon import Connection, DaemonProcess
from tests.images import place_guest_images

_DOMAINS = 1000
_ROUNDS = 7
_STATE = libvirt.VIR_DOMAIN_STATS_STATE
_USUAL = (
    _STATE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)


def measure() -> Sequence[Row]:
    """Latency of a listing."""
    with workspace() as folder, PrivateLibvirtd(folder) as libvirtd:
        native = libvirt.open(libvirtd.uri)
        try:
            _define_domains(native, folder)
            return _compare(native, libvirtd.uri, folder)
        finally:
            native.close()


def _define_domains(native: libvirt.virConnect, folder: Path) -> None:
    store = folder / "store"
    place_guest_images(store)
    images, _ = images_of(guest_spec("images"), store)
    for number in range(_DOMAINS):
        instance_id = str(uuid.uuid4())
        disk, console = folder / f"{instance_id}.qcow2", folder / f"{instance_id}.log"
        spec = guest_spec(f"listed-{number}")
        native.defineXML(xml_of(instance_id, spec, images, root_disk=disk, console=console))


def _compare(native: libvirt.virConnect, uri: str, folder: Path) -> list[Row]:
    daemon = DaemonProcess(folder, backend="libvirt", arguments=[f"--libvirt-uri={uri}"])
    with daemon.start(), daemon.connect() as connection, BareGrpc(folder) as bare:
        size = _list(connection, InstanceView.INSTANCE_VIEW_BASIC)
        ways: dict[str, Call] = {
            "getAllDomainStats, state": lambda: native.getAllDomainStats(_STATE),
            "getAllDomainStats, usual groups": lambda: native.getAllDomainStats(_USUAL),
            "virsh list --all": lambda: _virsh_list(uri),
            f"bare grpc.aio reply of {size // 1024} KiB": lambda: bare.reply(size),
        }
        basic, full = f"ListInstances BASIC of {_DOMAINS:,}", f"ListInstances FULL of {_DOMAINS:,}"
        found = medians(
            {
                **ways,
                basic: lambda: _list(connection, InstanceView.INSTANCE_VIEW_BASIC),
                full: lambda: _list(connection, InstanceView.INSTANCE_VIEW_FULL),
            },
            rounds=_ROUNDS,
        )
    *natives, plain = ways
    usual = natives[1]
    return [
        *(_row(found, basic, way, at_most=1) for way in natives),
        _row(found, full, usual, at_most=1),
        _row(found, basic, plain, at_most=4),
    ]


def _row(found: Mapping[str, float], what: str, against: str, *, at_most: float) -> Row:
    return Row(what=what, value=found[what], unit="s", against=against, base=found[against],
               at_most=at_most)  # fmt: skip


def _list(connection: Connection, view: "InstanceView.ValueType") -> int:
    """Lists everything; gives the bytes of the reply."""
    listed = connection.instances.ListInstances(pb.ListInstancesRequest(view=view))
    assert len(listed.instances) == _DOMAINS, len(listed.instances)
    return listed.ByteSize()


def _virsh_list(uri: str) -> None:
    listed = subprocess.run(["virsh", "-c", uri, "list", "--all"], check=True, capture_output=True)
    assert listed.stdout.count(b"listed-") == _DOMAINS
