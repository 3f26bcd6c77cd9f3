"""Instances as people name them: by UUID, or by the name that is unique on the host; images by id.

A shell completes the names that the daemon lists.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import click
import grpc
from click.shell_completion import CompletionItem

from virtrpc.address import Address
from virtrpc.cli.parameters import ParamType
from virtrpc.cli.words import word
from virtrpc.client import Client
from virtrpc.errors import ServiceError, made
from virtrpc.paging import pages
from virtrpc.v1.image_pb2 import ListImagesRequest
from virtrpc.v1.instance_pb2 import InstanceView, ListInstancesRequest
from virtrpc.v1.spec_pb2 import DiskFormat
from virtrpc.v1.types_pb2 import Error

COMPLETION_TIMEOUT_S = 2.0
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", flags=re.IGNORECASE)


class Name(ParamType):
    """The name of something that the daemon lists; `names` finds them, each with a word on it."""

    def __init__(self, name: str, names: Callable[[Client], Mapping[str, str]]) -> None:
        self.name = name
        self._names = names

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """Names that begin so; none while the daemon does not answer."""
        address = ctx.find_root().params.get("address")
        try:
            with Client(
                address if isinstance(address, Address) else None, timeout_s=COMPLETION_TIMEOUT_S
            ) as client:
                found = self._names(client)
        except ServiceError:
            return []
        return [
            CompletionItem(name, help=note)
            for name, note in sorted(found.items())
            if name.startswith(incomplete)
        ]


def names(client: Client) -> dict[str, str]:
    """The ids of all instances by their names, soft-deleted ones too."""
    request = ListInstancesRequest(view=InstanceView.INSTANCE_VIEW_NAMES, include_soft_deleted=True)
    return {
        instance.name: instance.instance_id
        for page in pages(client.instances.ListInstances, request)
        for instance in page.instances
    }


def instance_id(client: Client, name: str) -> str:
    """The id of the instance that is named so: a UUID is taken as it is.

    Raises NotFoundError when no instance has the name.
    """
    if _UUID.fullmatch(name):
        return name.lower()
    found = names(client)
    if name not in found:
        raise made(
            Error(
                code=grpc.StatusCode.NOT_FOUND.value[0],
                reason="INSTANCE_NOT_FOUND",
                message=f"no instance of this host is called {name!r}",
            )
        )
    return found[name]


def image_ids(client: Client) -> dict[str, str]:
    """The formats of all images by their ids."""
    return {
        image.image_id: word(DiskFormat, image.format)
        for page in pages(client.images.ListImages, ListImagesRequest())
        for image in page.images
    }


INSTANCE = Name("instance", names)
instance_argument = click.argument("instance", type=INSTANCE)
instances_argument = click.argument("instances", nargs=-1, required=True, type=INSTANCE)
IMAGE = Name("image", image_ids)
image_argument = click.argument("image_id", metavar="IMAGE", type=IMAGE)
images_argument = click.argument("named", metavar="IMAGES...", nargs=-1, required=True, type=IMAGE)
