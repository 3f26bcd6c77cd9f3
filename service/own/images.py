"""Reads of the image store, and the streams that carry images in and out.

An upload is an operation whose bytes come with the RPC: the worker thread asks for
one chunk at a time, and none where the image is in the store already.
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import IO, TypeVar

from virtrpc.v1 import image_pb2 as pb
from virtrpc.v1.image_pb2 import Image, UploadImageHeader, UploadImageResponse
from virtrpc.v1.options_pb2 import RECOVERY_ROLL_BACK, VERB_KIND_MUTATION, VerbOptions

from backends.errors import DamagedError, OutOfRangeError, WrongStateError
from backends.images import ImageStore, ImageUsers, Uploads
from backends.work import Work
from service.dispatcher import Call
from service.errors import OverloadedError, ShuttingDownError
from service.operations.execution import Method
from service.operations.operation import checked
from service.operations.runner import Operations
from service.own.paging import last_id, page_size, page_token
from service.pools import Pools
from service.truth import Truth
from service.uploads import UploadStream, no_more
from service.verbs import Verb

_CHUNK_BYTES = 256 << 10
_MOST_UPLOADS = 16  # each occupies a worker thread
T = TypeVar("T")


class ImageVerbs:
    """Verbs of images that the daemon carries out itself."""

    def __init__(
        self,
        *,
        store: ImageStore,
        users: ImageUsers,
        truth: Truth,
        operations: Operations,
        pools: Pools,
        upload: Verb,
    ) -> None:
        self._store = store
        self._users = users
        self._truth = truth
        self._operations = operations
        self._pools = pools
        self._uploads = Uploads(store)
        self._upload_verb = _as_operation(upload)
        self._uploading = 0

    def mutations(self) -> dict[str, tuple[Verb, Method]]:
        """Verbs that the journal may hold, with what takes them up after a restart."""
        return {self._upload_verb.name: (self._upload_verb, self._receive(no_more))}

    async def list_images(
        self, request: pb.ListImagesRequest, _call: Call
    ) -> pb.ListImagesResponse:
        """See ImageService.ListImages."""
        images = [image for image in await self._blocking(self._images) if _wanted(request, image)]
        size, last = page_size(request.page), last_id(request, request.page)
        page = [image for image in images if image.image_id > last]
        response = pb.ListImagesResponse(
            images=page[:size],
            total_count=len(images),
            store=await self._blocking(self._store.usage),
            freshness=self._truth.freshness(),
        )
        if len(page) > size:
            response.next_page_token = page_token(request, page[size - 1].image_id)
        return response

    async def download_image(
        self, request: pb.DownloadImageRequest, _call: Call
    ) -> AsyncIterator[pb.DownloadImageResponse]:
        """See ImageService.DownloadImage."""
        image, file = await self._blocking(self._store.open, request.image_id)
        try:
            _refuse_other(request, image)
            yield pb.DownloadImageResponse(image=image)
            offset = request.offset
            while offset < image.size_bytes:
                if self._operations.closing:
                    raise ShuttingDownError("the daemon stops", metadata={"offset": str(offset)})
                data = await self._blocking(_read, file, offset, image.size_bytes)
                yield pb.DownloadImageResponse(chunk=pb.ImageChunk(offset=offset, data=data))
                offset += len(data)
        finally:
            file.close()

    async def upload_image(
        self, requests: AsyncIterator[pb.UploadImageRequest], call: Call
    ) -> UploadImageResponse:
        """See ImageService.UploadImage."""
        stream = UploadStream(requests, still_there=call.still_there)
        header = await stream.header()
        method = self._receive(stream.chunks)
        self._operations.require_open()
        if header.validate_only:
            await self._blocking(checked, method, header, call.identity.name)
            return UploadImageResponse()
        try:
            return await self._upload(header, method, call)
        finally:
            stream.break_off()

    async def _upload(
        self, header: UploadImageHeader, method: Method, call: Call
    ) -> UploadImageResponse:
        if self._uploading >= _MOST_UPLOADS:
            raise OverloadedError(
                f"{_MOST_UPLOADS} uploads are under way already",
                metadata={"class": "UPLOAD", "limit": str(_MOST_UPLOADS)},
            )
        self._uploading += 1
        try:
            operation = await self._operations.start(
                self._upload_verb, header, method, caller=call.identity.name
            )
            return await self._operations.response(operation, UploadImageResponse)
        finally:
            self._uploading -= 1

    def _receive(self, chunks: Callable[[Work], Iterator[bytes]]) -> Method:
        return partial(self._uploads.receive, chunks=chunks)

    def _images(self) -> list[Image]:
        users = self._users.by_image(list(self._truth.all()))
        images = self._store.images()
        for image in images:
            image.used_by_instance_ids.extend(sorted(users.get(image.image_id, ())))
        return images

    async def _blocking(self, function: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pools.reads, function, *arguments)


def _as_operation(upload: Verb) -> Verb:
    """The upload as an operation: its request is the header, and it has the image's lane."""
    options = VerbOptions(
        role=upload.role, kind=VERB_KIND_MUTATION, lane="image_id", recovery=RECOVERY_ROLL_BACK
    )
    return dataclasses.replace(upload, options=options, request_class=UploadImageHeader)


def _wanted(request: pb.ListImagesRequest, image: Image) -> bool:
    if request.image_ids and image.image_id not in request.image_ids:
        return False
    return not (request.unused_only and image.used_by_instance_ids)


def _refuse_other(request: pb.DownloadImageRequest, image: Image) -> None:
    if request.expected_checksum and request.expected_checksum != image.checksum:
        raise WrongStateError(
            "the image has another checksum by now: begin at 0", reason="IMAGE_CHANGED"
        )
    if request.offset > image.size_bytes:
        raise OutOfRangeError(
            "offset is beyond the file's end",
            reason="OFFSET_OUT_OF_RANGE",
            field="offset",
            metadata={"size_bytes": str(image.size_bytes)},
        )


def _read(file: IO[bytes], offset: int, size_bytes: int) -> bytes:
    try:
        file.seek(offset)
        data = file.read(min(_CHUNK_BYTES, size_bytes - offset))
    except OSError as error:
        raise _damaged() from error
    if not data:
        raise _damaged()
    return data


def _damaged() -> DamagedError:
    return DamagedError("the image's file cannot be read whole", reason="IMAGE_DAMAGED")
