"""`host resources|inventory|nodes|overhead`: what the host has for instances."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from rich.console import Group, RenderableType

from virtrpc.cli.command import Verb
from virtrpc.cli.instance_view import note_freshness
from virtrpc.cli.parameters import MEBIBYTES, PAIR
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.tables import Column, listing, properties
from virtrpc.cli.words import mib, word
from virtrpc.v1 import host_pb2 as messages
from virtrpc.v1.spec_pb2 import Flavor, MachineSpec

_node_option = click.option(
    "--node", "node_name", default="", metavar="NAME", help="[default: the only one there is]"
)


@click.command("resources", cls=Verb)
@_node_option
@click.option("--fresh", is_flag=True, help="Ask host and hypervisor now.")
@pass_session
def resources(session: Session, /, **options: Any) -> None:
    """Shows what a node has, and what of it is used."""
    request = messages.GetAvailableResourceRequest(**options)
    response = session.client.hosts.GetAvailableResource(request)
    note_freshness(session, response.freshness)
    session.output.document(response, lambda: _resources(response))


@click.command("inventory", cls=Verb)
@_node_option
@pass_session
def inventory(session: Session, /, **options: Any) -> None:
    """Shows a node as a scheduler's resource providers."""
    response = session.client.hosts.GetInventory(messages.GetInventoryRequest(**options))
    note_freshness(session, response.freshness)
    session.output.document(response, lambda: _inventory(response))


@click.command("nodes", cls=Verb)
@click.option("--fresh", is_flag=True, help="Ask the hypervisor now.")
@pass_session
def nodes(session: Session, /, *, fresh: bool) -> None:
    """Lists the nodes that this service manages."""
    response = session.client.hosts.ListNodes(messages.ListNodesRequest(fresh=fresh))
    columns = (Column("ID", whole=True), Column("NAME"), Column("AVAILABLE", whole=True))
    rows = [(node.node_id, node.name, "yes" if node.available else "no") for node in response.nodes]
    session.output.document(response, lambda: listing(columns, rows))


@click.command("overhead", cls=Verb)
@click.option("--vcpus", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--memory", "memory_mib", type=MEBIBYTES, required=True, help="Memory in MiB, or e.g. 2G."
)
@click.option("--extra-spec", "extra_specs", type=PAIR, multiple=True, help="Repeatable.")
@click.option("--vtpm", is_flag=True, help="With a TPM.")
@pass_session
def overhead(session: Session, /, *, vtpm: bool, **flavor: Any) -> None:
    """Estimates what an instance takes beyond its flavor."""
    flavor["extra_specs"] = dict(flavor["extra_specs"])
    request = messages.EstimateInstanceOverheadRequest(
        flavor=Flavor(**flavor), machine=MachineSpec(vtpm=vtpm)
    )
    response = session.client.hosts.EstimateInstanceOverhead(request)
    facts = (
        ("memory", mib(response.memory_mib)),
        ("disk", mib(response.disk_mib)),
        ("CPUs", str(response.vcpus)),
    )
    session.output.document(response, lambda: properties(facts))


def _resources(node: messages.GetAvailableResourceResponse) -> RenderableType:
    parts: list[RenderableType] = [properties(_facts(node))]
    if node.numa_cells:
        parts += ["", _cells(node)]
    if node.pci_devices:
        parts += ["", _devices(node)]
    return Group(*parts)


def _facts(node: messages.GetAvailableResourceResponse) -> Iterator[tuple[str, str]]:
    cpu = node.cpu
    yield "node", f"{node.node_name} {node.node_id}"
    yield "hypervisor", f"{node.hypervisor.type} {node.hypervisor.version}"
    yield "CPU", " ".join(filter(None, (cpu.architecture, cpu.vendor, cpu.model, cpu.model_name)))
    yield "topology", f"{cpu.sockets} sockets × {cpu.cores} cores × {cpu.threads} threads"
    yield "vcpus", f"{node.vcpus_used} used, {node.vcpus} CPUs"
    yield "memory", f"{mib(node.memory_used_mib)} used of {mib(node.memory_mib)}"
    yield "disk", f"{mib(node.disk_used_mib)} used of {mib(node.disk_mib)}"
    yield "instances", f"{node.running_instances} are on"
    yield (
        "guests",
        ", ".join(
            f"{guest.hypervisor_type} {guest.architecture}" for guest in node.supported_guests
        ),
    )


def _cells(node: messages.GetAvailableResourceResponse) -> RenderableType:
    columns = (
        Column("CELL", right=True),
        Column("CPUS", right=True),
        Column("PINNED", right=True),
        Column("MEMORY", right=True, whole=True),
        Column("GIVEN", right=True, whole=True),
        Column("PAGES"),
    )
    rows = [
        (
            str(cell.cell_id),
            str(len(cell.shared_cpus)),
            str(len(cell.pinned_cpus)),
            mib(cell.memory_mib),
            mib(cell.memory_used_mib),
            ", ".join(
                f"{pool.used}/{pool.total} of {pool.page_size_kib} KiB"
                for pool in cell.pages
                if pool.total
            ),
        )
        for cell in node.numa_cells
    ]
    return listing(columns, rows)


def _devices(node: messages.GetAvailableResourceResponse) -> RenderableType:
    columns = (
        Column("ADDRESS", whole=True),
        Column("DEVICE", whole=True),
        Column("TYPE", whole=True),
        Column("DRIVER"),
        Column("INSTANCE", whole=True),
    )
    rows = [
        (
            device.address,
            f"{device.vendor_id}:{device.product_id}",
            word(messages.PciDeviceType, device.type),
            device.driver,
            device.instance_id,
        )
        for device in node.pci_devices
    ]
    return listing(columns, rows)


def _inventory(response: messages.GetInventoryResponse) -> RenderableType:
    columns = (
        Column("PROVIDER"),
        Column("CLASS", whole=True),
        Column("TOTAL", right=True, whole=True),
        Column("RESERVED", right=True, whole=True),
        Column("RATIO", right=True, whole=True),
    )
    rows = [
        (provider.name, name, str(found.total), str(found.reserved), f"{found.allocation_ratio:g}")
        for provider in response.providers
        for name, found in sorted(provider.inventories.items())
    ]
    traits = ", ".join(response.providers[0].traits) if response.providers else ""
    return Group(listing(columns, rows), "", properties((("traits", traits),)))


VERBS = (resources, inventory, nodes, overhead)
