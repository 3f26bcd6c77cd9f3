"""`instance spawn`."""

from __future__ import annotations

import uuid
from typing import Any

import click

from virtrpc.cli import specification
from virtrpc.cli.command import Verb, mutation_options, no_wait_option
from virtrpc.cli.long_running import ended
from virtrpc.cli.nic import NIC
from virtrpc.cli.parameters import GIBIBYTES, MEBIBYTES, PAIR
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.words import word
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.types_pb2 import PowerState


@click.command(cls=Verb)
@click.argument("name", required=False)
@click.option("--name", "name_option", metavar="TEXT", help="As NAME.")
@click.option("--id", "instance_id", type=click.UUID, help="Its UUID.  [default: a random one]")
@click.option("--image", default="", metavar="ID", help="Image of the root disk.")
@click.option("--kernel", default="", metavar="ID", help="Image of a kernel to boot directly.")
@click.option("--ramdisk", default="", metavar="ID", help="Image of the kernel's initial ramdisk.")
@click.option("--kernel-args", default="", metavar="TEXT", help="The kernel's command line.")
@click.option(
    "--vcpus",
    type=click.IntRange(min=1, max=2**32 - 1),
    help=f"Virtual CPUs.  [default: {specification.DEFAULT_VCPUS}]",
)
@click.option(
    "--memory",
    "memory_mib",
    type=MEBIBYTES,
    help=f"Memory in MiB, or e.g. 2G.  [default: {specification.DEFAULT_MEMORY_MIB}]",
)
@click.option(
    "--disk",
    "disk_gib",
    type=GIBIBYTES,
    help="Size of the root disk in GiB.  [default: the image's]",
)
@click.option(
    "--nic",
    "interfaces",
    type=NIC,
    multiple=True,
    help="Interface: user, bridge=BRIDGE, network=NETWORK, …, then ,mac=… ,model=… ,mtu=…"
    " Repeatable.",
)
@click.option("--metadata", type=PAIR, multiple=True, help="Metadata. Repeatable.")
@click.option("--label", "labels", type=PAIR, multiple=True, help="Label. Repeatable.")
@click.option(
    "--file",
    metavar="PATH",
    help="SpawnInstanceRequest or InstanceSpec in JSON or YAML, '-' for standard input;"
    " flags override it.",
)
@no_wait_option
@mutation_options
@pass_session
def spawn(
    session: Session,
    /,
    *,
    name: str | None,
    name_option: str | None,
    instance_id: uuid.UUID | None,
    file: str | None,
    no_wait: bool,
    **flags: Any,
) -> None:
    """Makes an instance and starts it."""
    if name and name_option:
        raise click.UsageError("the name is given twice")
    flags["metadata"], flags["labels"] = dict(flags["metadata"]), dict(flags["labels"])
    given = specification.Flags(
        name=name or name_option or "", instance_id=str(instance_id or ""), **flags
    )
    request = specification.request(given, file)
    operation = session.client.instances.SpawnInstance(request)
    end = ended(session, operation, checked=request.validate_only, no_wait=no_wait, words=_spawned)
    session.output.document(end.document, lambda: end.text)


def _spawned(instance: Instance) -> str:
    return f"{instance.name} {instance.instance_id} {word(PowerState, instance.power_state)}"
