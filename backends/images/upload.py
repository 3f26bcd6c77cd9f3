"""An image that a caller sends: the part of UploadImage that is an operation."""

from collections.abc import Callable, Iterator

from virtrpc.v1 import image_pb2 as pb

from backends.errors import InvalidArgumentError
from backends.images.arrivals import Arrival, Arrivals
from backends.images.store import ImageStore
from backends.work import Work

Chunks = Callable[[Work], Iterator[bytes]]


class Uploads:
    """Takes images from callers."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._arrivals = Arrivals(store)

    def receive(
        self, header: pb.UploadImageHeader, work: Work, chunks: Chunks
    ) -> pb.UploadImageResponse:
        """Takes an image. No chunk is asked for where it is in the store already."""
        arrived = self._arrivals.finished(header.image_id, work)
        if arrived is not None:
            return pb.UploadImageResponse(image=arrived)
        arrival = Arrival(
            image_id=header.image_id,
            declared=header.declared,
            origin=pb.IMAGE_ORIGIN_UPLOAD,
            size_bytes=header.size_bytes,
        )
        with self._store.reading(header.image_id):
            if self._store.exists(header.image_id):
                return self._again(arrival, work, chunks)
            work.ready(self._arrivals.blockers(arrival))
            image = self._arrivals.take(arrival, _counted(chunks(work), header.size_bytes), work)
            return pb.UploadImageResponse(image=image)

    def _again(self, arrival: Arrival, work: Work, chunks: Chunks) -> pb.UploadImageResponse:
        """The id is taken: by the same image, or by another one."""
        image = self._arrivals.of_same_format(arrival)
        if arrival.declared.checksum:
            self._arrivals.existing(arrival, work)
            work.ready()
        else:
            work.ready()
            self._arrivals.compare(image, _counted(chunks(work), arrival.size_bytes), work)
        work.step("describe")
        described = self._arrivals.describe(image, arrival.declared)
        return pb.UploadImageResponse(image=described, already_there=True)


def _counted(chunks: Iterator[bytes], size_bytes: int) -> Iterator[bytes]:
    """The chunks, which must be as many bytes as the header says; 0: any number."""
    count = 0
    for chunk in chunks:
        count += len(chunk)
        if 0 < size_bytes < count:
            break
        yield chunk
    if size_bytes and count != size_bytes:
        raise InvalidArgumentError(
            f"the chunks are not the {size_bytes} bytes that the header says",
            field="header.size_bytes",
        )
