"""`instance mount-share|umount-share`: directories of the host that guests may mount."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Any

import click

from virtrpc.cli.change import change
from virtrpc.cli.command import Verb, mutation_options
from virtrpc.cli.naming import instance_argument
from virtrpc.cli.session import Session, pass_session
from virtrpc.v1 import instance_pb2 as messages


@click.command("mount-share", cls=Verb)
@instance_argument
@click.argument("path")
@click.option("--tag", required=True, help="By which the guest mounts it.")
@click.option("--share-id", metavar="UUID", help="Identity of the share.  [default: a new one]")
@click.option("--read-only", is_flag=True, help="The guest may not write.")
@mutation_options
@pass_session
def mount_share(
    session: Session, /, *, instance: str, share_id: str | None, **options: Any
) -> None:
    """Offers the host's directory PATH to an instance.

    It is off, or had a share at its start.

    The guest mounts it with: mount -t virtiofs TAG DIRECTORY
    """
    share_id = share_id or str(uuid.uuid4())
    request = partial(messages.MountShareRequest, share_id=share_id, **options)
    call = session.client.instances.MountShare
    change(session, [instance], call, request, words=lambda _: f"share {share_id}")


@click.command("umount-share", cls=Verb)
@instance_argument
@click.argument("share_id", metavar="SHARE")
@mutation_options
@pass_session
def umount_share(session: Session, /, *, instance: str, **options: Any) -> None:
    """Takes a share away from an instance; a guest that runs has unmounted it before."""
    request = partial(messages.UmountShareRequest, **options)
    change(session, [instance], session.client.instances.UmountShare, request, words=_umounted)


def _umounted(response: messages.UmountShareResponse) -> str:
    return "umounted" + (", others still use it" if response.still_used else "")


VERBS = (mount_share, umount_share)
