"""`instance destroy|soft-delete|…`: the end of instances, and what it leaves.

    soft-delete ──restore──> as before
         └──────destroy────> gone; cleanup and delete-files take what is left

Soft-deleted instances keep their names; a destroyed one is named by its UUID.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import click

from virtrpc.cli.change import change, duration
from virtrpc.cli.command import Verb, mutation_options
from virtrpc.cli.naming import instances_argument
from virtrpc.cli.parameters import Seconds
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.words import when
from virtrpc.v1 import instance_pb2 as messages


@click.command("destroy", cls=Verb)
@instances_argument
@click.option("--keep-disks", is_flag=True, help="Keep its disks, files and secrets.")
@mutation_options
@pass_session
def destroy(
    session: Session, /, *, instances: Sequence[str], keep_disks: bool, **common: Any
) -> None:
    """Stops instances at once and removes them, disks and all."""
    request = partial(
        messages.DestroyInstanceRequest,
        destroy_disks=not keep_disks,
        destroy_secrets=not keep_disks,
        **common,
    )
    change(session, instances, session.client.instances.DestroyInstance, request, words=_destroyed)


@click.command("soft-delete", cls=Verb)
@instances_argument
@click.option(
    "--retention",
    "retention_s",
    type=Seconds(),
    metavar="SECONDS",
    help="How long they can be restored.  [default: the daemon's]",
)
@mutation_options
@pass_session
def soft_delete(
    session: Session, /, *, instances: Sequence[str], retention_s: float | None, **common: Any
) -> None:
    """Switches instances off and hides them; destroyed later, unless restored."""
    request = partial(messages.SoftDeleteInstanceRequest, retention=duration(retention_s), **common)
    call = session.client.instances.SoftDeleteInstance
    change(session, instances, call, request, words=_soft_deleted)


@click.command("restore", cls=Verb)
@instances_argument
@mutation_options
@pass_session
def restore(session: Session, /, *, instances: Sequence[str], **common: Any) -> None:
    """Brings soft-deleted instances back and starts them."""
    request = partial(messages.RestoreInstanceRequest, **common)
    change(session, instances, session.client.instances.RestoreInstance, request)


@click.command("cleanup", cls=Verb)
@instances_argument
@click.option("--interfaces", "destroy_vifs", is_flag=True, help="Its interfaces on the host too.")
@click.option("--disks", "destroy_disks", is_flag=True, help="Its disks too.")
@mutation_options
@pass_session
def cleanup(session: Session, /, *, instances: Sequence[str], **options: Any) -> None:
    """Removes what destroyed instances have left on the host."""
    request = partial(messages.CleanupInstanceRequest, **options)
    call = session.client.instances.CleanupInstance
    change(session, instances, call, request, words=_cleaned)


@click.command("delete-files", cls=Verb)
@instances_argument
@mutation_options
@pass_session
def delete_files(session: Session, /, *, instances: Sequence[str], **common: Any) -> None:
    """Deletes the files of instances that are no longer defined here."""
    request = partial(messages.DeleteInstanceFilesRequest, **common)
    call = session.client.instances.DeleteInstanceFiles
    change(session, instances, call, request, words=_deleted)


@click.command("on-disk", cls=Verb)
@instances_argument
@pass_session
def on_disk(session: Session, /, *, instances: Sequence[str]) -> None:
    """Says whether the files of instances can be reached from this host."""
    call = session.client.instances.CheckInstanceOnDisk
    change(session, instances, call, messages.CheckInstanceOnDiskRequest, words=_on_disk)


def _destroyed(response: messages.DestroyInstanceResponse) -> str:
    return "did not exist" if response.already_gone else "destroyed"


def _soft_deleted(response: messages.SoftDeleteInstanceResponse) -> str:
    return f"deleted, destroyed at {when(response.instance.reclaim_at)}"


def _cleaned(response: messages.CleanupInstanceResponse) -> str:
    removed = ", ".join(response.removed)
    return f"removed {removed}" if removed else "nothing was left"


def _deleted(response: messages.DeleteInstanceFilesResponse) -> str:
    return "no file is left" if response.gone else "files are left"


def _on_disk(response: messages.CheckInstanceOnDiskResponse) -> str:
    return "files are here" if response.on_disk else "no files are here"


VERBS = (destroy, soft_delete, restore, cleanup, delete_files, on_disk)
