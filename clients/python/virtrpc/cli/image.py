"""`image`: the host's store of images; what goes into it and comes out is in image_*."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from virtrpc.cli import image_download, image_pull, image_upload, image_view
from virtrpc.cli.change import duration, each
from virtrpc.cli.command import Noun, mutation_options
from virtrpc.cli.image_listing import found, listed
from virtrpc.cli.long_running import CHECKED
from virtrpc.cli.naming import IMAGE, image_argument, images_argument
from virtrpc.cli.session import Session, pass_session
from virtrpc.cli.structure import structure
from virtrpc.cli.words import byte_size
from virtrpc.v1 import image_pb2 as messages


@click.group(cls=Noun)
def noun() -> None:
    """The images of the host's store, which disks are made from."""


for verb in (image_pull.pull, image_upload.upload, image_download.download):
    noun.add_command(verb)


@noun.command("list")
@click.argument("named", metavar="[IMAGES]...", nargs=-1, type=IMAGE)
@click.option("--unused", is_flag=True, help="Only those that no instance uses.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@pass_session
def list_(session: Session, /, *, named: Sequence[str], unused: bool, quiet: bool) -> None:
    """Lists images, and tells how much room there is."""
    whole = listed(session, messages.ListImagesRequest(image_ids=named, unused_only=unused))
    table = image_view.identifiers if quiet else image_view.listed
    session.output.document({"images": [], **structure(whole)}, lambda: table(whole.images))
    if not quiet:
        session.note(image_view.room(whole.store))


@noun.command("show")
@image_argument
@pass_session
def show(session: Session, /, *, image_id: str) -> None:
    """Shows an image."""
    image = found(session, image_id)
    session.output.document(image, lambda: image_view.shown(image))


@noun.command("delete")
@images_argument
@mutation_options
@pass_session
def delete(session: Session, /, *, named: Sequence[str], **common: Any) -> None:
    """Deletes images; one that is not there is a success."""

    def act(image_id: str) -> None:
        request = messages.DeleteImageRequest(image_id=image_id, **common)
        response = session.client.images.DeleteImage(request)
        did = "did not exist" if response.already_gone else "deleted"
        done = CHECKED if request.validate_only else did
        document = {"image_id": image_id, **structure(response)}
        session.output.element(document, lambda: f"{image_id}: {done}")

    each(session, named, act)


@noun.command("cache")
@click.option(
    "--unused-for",
    "unused_for_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Delete what has not been used for longer.  [default: the daemon's, 24 h]",
)
@click.option("--keep", type=IMAGE, multiple=True, help="Not this one. Repeatable.")
@mutation_options
@pass_session
def cache(
    session: Session, /, *, unused_for_s: float | None, keep: Sequence[str], **common: Any
) -> None:
    """Deletes evictable images that are not used; --validate-only tells which."""
    request = messages.ManageImageCacheRequest(
        max_unused_age=duration(unused_for_s), keep_image_ids=keep, **common
    )
    response = session.client.images.ManageImageCache(request)
    session.output.document(
        {"deleted_image_ids": [], **structure(response)},
        lambda: _cleared(response, would=request.validate_only),
    )


def _cleared(response: messages.ManageImageCacheResponse, *, would: bool) -> str:
    did = "would delete" if would else "deleted"
    lines = [f"{image_id}: {did}" for image_id in response.deleted_image_ids]
    lines.append(
        f"{did} {len(response.deleted_image_ids)}, {byte_size(response.freed_bytes)};"
        f" {response.kept_images} kept"
    )
    return "\n".join(lines)
