"""ListInstances of 1,000, in turns with libvirt's own ways to the same domains.

The domains are off, in a libvirtd of the bench's own; the daemon is its client
like the others.
"""

import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

import libvirt
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.instance_pb2 import InstanceView

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
    with daemon.start(), daemon.connect() as connection:
        ways: dict[str, Call] = {
            "BASIC": lambda: _list(connection, InstanceView.INSTANCE_VIEW_BASIC),
            "FULL": lambda: _list(connection, InstanceView.INSTANCE_VIEW_FULL),
            "getAllDomainStats, state": lambda: native.getAllDomainStats(_STATE),
            "getAllDomainStats, usual groups": lambda: native.getAllDomainStats(_USUAL),
            "virsh list --all": lambda: _virsh_list(uri),
        }
        found = medians(ways, rounds=_ROUNDS)
    basic, full, *natives = ways
    row = Row(what=f"ListInstances {basic} of {_DOMAINS:,}", value=found[basic], unit="s")
    rows = [
        Row(what=row.what, value=row.value, unit="s", against=way, base=found[way], at_most=1)
        for way in natives
    ]
    usual = natives[1]
    return [
        *rows,
        Row(what=f"ListInstances {full} of {_DOMAINS:,}", value=found[full], unit="s",
            against=usual, base=found[usual], at_most=1),
    ]  # fmt: skip


def _list(connection: Connection, view: "InstanceView.ValueType") -> None:
    listed = connection.instances.ListInstances(pb.ListInstancesRequest(view=view))
    assert len(listed.instances) == _DOMAINS, len(listed.instances)


def _virsh_list(uri: str) -> None:
    listed = subprocess.run(["virsh", "-c", uri, "list", "--all"], check=True, capture_output=True)
    assert listed.stdout.count(b"listed-") == _DOMAINS
