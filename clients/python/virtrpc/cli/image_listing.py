"""Images as the store lists them."""

from __future__ import annotations

import grpc

from virtrpc.cli.instance_view import note_freshness
from virtrpc.cli.session import Session
from virtrpc.errors import made
from virtrpc.paging import pages
from virtrpc.v1.image_pb2 import Image, ListImagesRequest, ListImagesResponse
from virtrpc.v1.types_pb2 import Error


def listed(session: Session, request: ListImagesRequest) -> ListImagesResponse:
    """All pages of a listing in one; people are told when it is old."""
    whole = ListImagesResponse()
    for page in pages(session.client.images.ListImages, request):
        whole.MergeFrom(page)
    whole.next_page_token = ""
    note_freshness(session, whole.freshness)
    return whole


def found(session: Session, image_id: str) -> Image:
    """The image of this id; raises NotFoundError where the store has none."""
    whole = listed(session, ListImagesRequest(image_ids=[image_id]))
    if not whole.images:
        raise made(
            Error(
                code=grpc.StatusCode.NOT_FOUND.value[0],
                reason="IMAGE_NOT_FOUND",
                message=f"the store has no image {image_id!r}",
            )
        )
    return whole.images[0]
