"""The verbs that change the store, alike on every backend."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from virtrpc.v1 import image_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance

from backends.contract import Images
from backends.errors import ContractError
from backends.images.address_rules import AddressRules
from backends.images.arrivals import UNDO_ARRIVAL, Arrival, Arrivals
from backends.images.cache import ImageCache
from backends.images.file_source import FileSource
from backends.images.http_source import HttpSource
from backends.images.refusals import image_in_use
from backends.images.store import ImageStore
from backends.images.usage import ImageUsers
from backends.work import Validated, Work


class Source(Protocol):
    """Where an image is fetched from."""

    size_bytes: int

    def check(self) -> None:
        """Raises what is in the way as far as this host alone can tell."""

    def begin(self) -> None:
        """From here on the size is known, where it can be."""

    def chunks(self) -> Iterator[bytes]:
        """The bytes, in order."""

    def close(self) -> None:
        """Lets go of it."""


def _unobserved(work: Work, _verb: str) -> Work:
    return work


class HostImages(Images):
    """Images of this host. Reads of the store and streams are the daemon's own verbs."""

    def __init__(
        self,
        store: ImageStore,
        users: ImageUsers,
        *,
        instances: Callable[[], Iterable[Instance]],
        observed: Callable[[Work, str], Work] = _unobserved,
    ) -> None:
        """`instances` asks the hypervisor for all there are, and raises UnreachableError.

        `observed` may put something between a verb and its work, as the faults of a fake.
        """
        self._store = store
        self._users = users
        self._instances = instances
        self._observed = observed
        self._arrivals = Arrivals(store)
        self._rules = AddressRules(store.policy.url_prefixes)
        self._cache = ImageCache(store)
        self.undo = {UNDO_ARRIVAL: self._arrivals.discard}
        """Undo actions, which take an operation's id."""

    def pull_image(self, request: pb.PullImageRequest, work: Work) -> pb.Image:
        """See Images."""
        work = self._observed(work, "pull_image")
        arrived = self._arrivals.finished(request.image_id, work)
        if arrived is not None:
            return arrived
        arrival = _arrival(request)
        with self._store.reading(request.image_id):
            existing = self._arrivals.existing(arrival, work)
            if existing is not None:
                work.ready()
                work.step("describe")
                return self._arrivals.describe(existing, request.declared)
            return self._fetch(self._source(request, work), arrival, work)

    def delete_image(self, request: pb.DeleteImageRequest, work: Work) -> pb.DeleteImageResponse:
        """See Images."""
        work = self._observed(work, "delete_image")
        image_id = request.image_id
        with self._store.claimed(image_id):
            there = self._store.exists(image_id)
            users = self._used().get(image_id) if there else None
            work.ready([image_in_use(image_id, users)] if users else [])
            work.step("delete")
            self._store.remove(image_id)
        return pb.DeleteImageResponse(already_gone=not there)

    def manage_image_cache(
        self, request: pb.ManageImageCacheRequest, work: Work
    ) -> pb.ManageImageCacheResponse:
        """See Images."""
        work = self._observed(work, "manage_image_cache")
        age_s = self._store.policy.max_unused_age_s
        if request.HasField("max_unused_age"):
            age_s = request.max_unused_age.ToNanoseconds() / 1e9
        unused_since_ns = time.time_ns() - int(age_s * 1e9)
        users = self._used()
        keep = {*request.keep_image_ids, *users}
        if request.validate_only:
            raise Validated(self._cache.plan(keep, unused_since_ns))
        work.ready()
        work.step("delete")
        self._cache.mark_used(users)
        return self._cache.evict(keep, unused_since_ns, self._used)

    def _used(self) -> Mapping[str, set[str]]:
        """The users of images, asked of the hypervisor."""
        return self._users.by_image(self._instances())

    def _source(self, request: pb.PullImageRequest, work: Work) -> Source:
        if request.WhichOneof("source") == "file":
            return FileSource(request.file, self._store.policy.source_dirs)
        return HttpSource(request.http, self._rules, checkpoint=work.checkpoint, wait=work.wait)

    def _fetch(self, source: Source, arrival: Arrival, work: Work) -> pb.Image:
        try:
            work.ready(self._blockers(source, arrival))
            work.phase("fetch", percent=0)
            source.begin()
            sized = replace(arrival, size_bytes=source.size_bytes)
            for blocker in self._arrivals.blockers(sized):
                raise blocker
            return self._arrivals.take(sized, source.chunks(), work)
        finally:
            source.close()

    def _blockers(self, source: Source, arrival: Arrival) -> list[ContractError]:
        try:
            source.check()
        except ContractError as error:
            return [error]
        return self._arrivals.blockers(replace(arrival, size_bytes=source.size_bytes))


def _arrival(request: pb.PullImageRequest) -> Arrival:
    from_file = request.WhichOneof("source") == "file"
    return Arrival(
        image_id=request.image_id,
        declared=request.declared,
        origin=pb.IMAGE_ORIGIN_FILE if from_file else pb.IMAGE_ORIGIN_HTTP,
        source=request.file.path if from_file else request.http.url,
    )
