"""`interface`: the network interfaces of instances."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import click
from rich.console import RenderableType

from virtrpc.cli.change import duration
from virtrpc.cli.command import Noun, mutation_options, timeout_option
from virtrpc.cli.long_running import CHECKED
from virtrpc.cli.naming import instance_argument, instance_id
from virtrpc.cli.nic import NIC, with_ports
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.tables import Column, listing, properties
from virtrpc.v1 import interface_pb2 as messages
from virtrpc.v1.instance_pb2 import AttachedInterface
from virtrpc.v1.spec_pb2 import InterfaceSpec


@click.group(cls=Noun)
def noun() -> None:
    """Network interfaces of instances."""


@noun.command("attach")
@instance_argument
@click.argument("nic", type=NIC)
@timeout_option("How long the hypervisor may take.  [default: 60]")
@mutation_options
@pass_session
def attach(
    session: Session,
    /,
    *,
    instance: str,
    nic: InterfaceSpec,
    timeout_s: float | None,
    **common: Any,
) -> None:
    """Attaches an interface, noted as for `instance spawn --nic`, e.g. bridge=br0,mtu=1400."""
    id_ = instance_id(session.client, instance)
    nic.port_id = nic.port_id or str(uuid.uuid4())
    request = messages.AttachInterfaceRequest(
        instance_id=id_, interface=nic, timeout=duration(timeout_s), **common
    )
    response = session.client.interfaces.AttachInterface(request)
    checked = request.validate_only
    session.output.document(response, lambda: CHECKED if checked else _listed([response.interface]))


@noun.command("detach")
@instance_argument
@click.argument("port", type=click.UUID, required=False)
@click.option("--mac", default="", metavar="MAC", help="The one with this address.")
@timeout_option("How long the guest has to release it.  [default: 160]")
@mutation_options
@pass_session
def detach(
    session: Session,
    /,
    *,
    instance: str,
    port: uuid.UUID | None,
    mac: str,
    timeout_s: float | None,
    **common: Any,
) -> None:
    """Detaches an interface, by its port or its MAC address."""
    if port is None and not mac:
        raise click.UsageError("which interface? PORT or --mac")
    request = messages.DetachInterfaceRequest(
        instance_id=instance_id(session.client, instance),
        port_id=str(port or ""),
        mac_address=mac.lower(),
        timeout=duration(timeout_s),
        **common,
    )
    response = session.client.interfaces.DetachInterface(request)
    done = "was not attached" if response.already_gone else _still_there(response, request)
    session.output.document(response, lambda: CHECKED if request.validate_only else done)


def _still_there(
    response: messages.DetachInterfaceResponse, request: messages.DetachInterfaceRequest
) -> str:
    attached = response.instance.effective.interfaces
    port, mac = request.port_id, request.mac_address
    there = any(i.port_id == port if port else i.mac_address == mac for i in attached)
    return "asked for; the guest has not released it yet" if there else "detached"


@noun.command("plug")
@instance_argument
@click.argument("ports", type=click.UUID, nargs=-1)
@mutation_options
@pass_session
def plug(session: Session, /, *, instance: str, ports: Sequence[uuid.UUID], **common: Any) -> None:
    """Puts the host's side of an instance's interfaces in place: all, or those of PORTS."""
    request = messages.PlugInterfacesRequest(
        instance_id=instance_id(session.client, instance),
        port_ids=[str(port) for port in ports],
        **common,
    )
    response = session.client.interfaces.PlugInterfaces(request)
    checked = request.validate_only
    session.output.document(response, lambda: CHECKED if checked else _listed(response.interfaces))


@noun.command("unplug")
@instance_argument
@mutation_options
@pass_session
def unplug(session: Session, /, *, instance: str, **common: Any) -> None:
    """Removes the host's side of an instance's interfaces; the machine must be off or gone."""
    request = messages.UnplugInterfacesRequest(
        instance_id=instance_id(session.client, instance), **common
    )
    response = session.client.interfaces.UnplugInterfaces(request)
    told = "\n".join(response.port_ids) or "nothing was there"
    session.output.document(response, lambda: CHECKED if request.validate_only else told)


@noun.command("prepare")
@click.argument("instance", type=click.UUID)
@click.argument("nics", type=NIC, nargs=-1, required=True)
@mutation_options
@pass_session
def prepare(
    session: Session, /, *, instance: uuid.UUID, nics: Sequence[InterfaceSpec], **common: Any
) -> None:
    """Reserves interfaces for an instance to come, of this UUID."""
    request = messages.PrepareNetworksRequest(
        instance_id=str(instance), interfaces=with_ports(str(instance), nics), **common
    )
    response = session.client.interfaces.PrepareNetworks(request)
    checked = request.validate_only
    session.output.document(response, lambda: CHECKED if checked else _listed(response.interfaces))


@noun.command("clean")
@click.argument("instance", type=click.UUID)
@mutation_options
@pass_session
def clean(session: Session, /, *, instance: uuid.UUID, **common: Any) -> None:
    """Gives up what was prepared for an instance that does not come."""
    request = messages.CleanNetworksPreparationRequest(instance_id=str(instance), **common)
    response = session.client.interfaces.CleanNetworksPreparation(request)
    told = "nothing was prepared" if response.already_gone else "given up"
    session.output.document(response, lambda: CHECKED if request.validate_only else told)


@noun.command("policy")
@pass_session
def policy(session: Session, /) -> None:
    """Shows what a network service must know before it makes ports for this host."""
    request = messages.GetInterfacePolicyRequest()
    response = session.client.interfaces.GetInterfacePolicy(request)
    facts = (
        ("binding host", response.binding_host_id),
        ("MAC prefix", response.mac_prefix),
        ("allowed MACs", ", ".join(response.allowed_mac_addresses) or "any that is not taken"),
        ("binds ports", "yes" if response.manages_bindings else "no"),
        ("drop ports on reschedule", "yes" if response.deallocate_on_reschedule else "no"),
    )
    session.output.document(response, lambda: properties(facts))


def _listed(interfaces: Iterable[AttachedInterface]) -> RenderableType:
    """A line for each interface."""
    columns = (
        Column("PORT", whole=True),
        Column("MAC", whole=True),
        Column("HOST DEVICE", whole=True),
        Column("TYPE", wide=True),
        Column("SOURCE", wide=True),
        Column("MODEL", wide=True),
    )
    rows = [
        (nic.port_id, nic.mac_address, nic.host_device, nic.type, nic.source, nic.model)
        for nic in interfaces
    ]
    return listing(columns, rows)
