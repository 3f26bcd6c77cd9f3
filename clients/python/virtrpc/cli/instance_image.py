"""`instance rebuild|snapshot|rescue|unrescue`: instances and images of the store."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import click

from virtrpc.cli import specification
from virtrpc.cli.change import change, change_at_length
from virtrpc.cli.command import Verb, mutation_options, no_wait_option
from virtrpc.cli.naming import instance_argument, instances_argument
from virtrpc.cli.parameters import EnumChoice
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.standard_input import password
from virtrpc.cli.words import byte_size
from virtrpc.v1 import instance_pb2 as messages
from virtrpc.v1.spec_pb2 import DiskFormat, ImageSource, InstanceSpec


@click.command("rebuild", cls=Verb)
@instance_argument
@click.option("--image", "image_id", default="", metavar="ID", help="Image of the new root disk.")
@click.option(
    "--recreate",
    "file",
    metavar="PATH",
    help="Make it anew here, its host being gone: InstanceSpec in JSON or YAML,"
    " '-' for standard input.",
)
@click.option(
    "--guest",
    "guest_file",
    metavar="PATH",
    help="What the guest is told at its first boot: GuestConfig in JSON or YAML, '-' for"
    " standard input.  [default: as before, without the secrets]",
)
@click.option("--preserve-ephemeral", is_flag=True, help="Keep its ephemeral disks.")
@click.option("--reimage-boot-volume", is_flag=True, help="Write the boot volume anew.")
@no_wait_option
@mutation_options
@pass_session
def rebuild(
    session: Session,
    /,
    *,
    instance: str,
    image_id: str,
    file: str | None,
    guest_file: str | None,
    no_wait: bool,
    **options: Any,
) -> None:
    """Gives an instance a new root disk; it keeps its identity and all else."""
    spec = specification.from_file(file).spec if file else None
    guest = specification.guest_from_file(guest_file) if guest_file else None
    request = partial(
        messages.RebuildInstanceRequest,
        guest=guest,
        image=_image(image_id, spec),
        recreate=spec is not None,
        spec=spec,
        **options,
    )
    call = session.client.instances.RebuildInstance
    change_at_length(session, [instance], call, request, no_wait=no_wait)


@click.command("snapshot", cls=Verb)
@instance_argument
@click.argument("image_id", metavar="IMAGE")
@click.option("--quiesce", is_flag=True, help="Freeze the guest's filesystems for the cut.")
@click.option("--format", type=EnumChoice(DiskFormat), help="Of the image.  [default: qcow2]")
@no_wait_option
@mutation_options
@pass_session
def snapshot(session: Session, /, *, instance: str, no_wait: bool, **options: Any) -> None:
    """Copies the root disk into the new image IMAGE of the host's store."""
    request = partial(messages.SnapshotInstanceRequest, **options)
    call = session.client.instances.SnapshotInstance
    change_at_length(session, [instance], call, request, no_wait=no_wait, words=_snapshot)


@click.command("rescue", cls=Verb)
@instance_argument
@click.option("--image", "rescue_image_id", required=True, metavar="ID", help="Image to boot.")
@click.option(
    "--password",
    "with_password",
    is_flag=True,
    help="Set one: asked for, or standard input in a pipe.",
)
@mutation_options
@pass_session
def rescue(session: Session, /, *, instance: str, with_password: bool, **options: Any) -> None:
    """Boots an instance from a rescue image, its own disk beside it."""
    admin_password = password("Password of the rescue system") if with_password else ""
    request = partial(messages.RescueInstanceRequest, admin_password=admin_password, **options)
    change(session, [instance], session.client.instances.RescueInstance, request)


@click.command("unrescue", cls=Verb)
@instances_argument
@mutation_options
@pass_session
def unrescue(session: Session, /, *, instances: Sequence[str], **common: Any) -> None:
    """Boots rescued instances from their own disks again."""
    request = partial(messages.UnrescueInstanceRequest, **common)
    change(session, instances, session.client.instances.UnrescueInstance, request)


def _image(image_id: str, spec: InstanceSpec | None) -> ImageSource:
    if image_id:
        return ImageSource(image_id=image_id)
    if spec is None or not spec.HasField("image"):
        raise click.UsageError("the image is missing: --image ID")
    return spec.image


def _snapshot(made: messages.SnapshotInstanceResponse) -> str:
    how = "live" if made.live else "while off"
    return f"image {made.image_id}, {byte_size(made.size_bytes)}, {how}, {made.checksum}"


VERBS = (rebuild, snapshot, rescue, unrescue)
