"""Ages out what nobody uses. Overlays stand on the images themselves: there are no other bases."""

from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack

import structlog
from virtrpc.v1.image_pb2 import Image, ManageImageCacheResponse

from backends.errors import ContractError
from backends.images.store import ImageStore

log = structlog.get_logger()


class ImageCache:
    """The evictable images of a store."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def mark_used(self, image_ids: Iterable[str]) -> None:
        """Notes that these are used now."""
        for image_id in image_ids:
            self._store.records.mark_used(image_id)

    def plan(self, keep: Collection[str], unused_since_ns: int) -> ManageImageCacheResponse:
        """What `evict` would answer now."""
        old = self._old(keep, unused_since_ns)
        return self._reply([image.image_id for image in old], sum(i.size_bytes for i in old))

    def evict(
        self,
        keep: Collection[str],
        unused_since_ns: int,
        used_now: Callable[[], Collection[str]],
    ) -> ManageImageCacheResponse:
        """Deletes the evictable images that were not used since, and are none of `keep`.

        `used_now` is asked when nobody can begin to use them any more.
        """
        deleted, freed_bytes = [], 0
        with ExitStack() as claims:
            claimed = [i for i in self._old(keep, unused_since_ns) if self._claim(i, claims)]
            used = used_now() if claimed else ()
            for image in claimed:
                if image.image_id not in used:
                    freed_bytes += self._store.remove(image.image_id)
                    deleted.append(image.image_id)
        if deleted:
            log.info("images evicted", image_ids=deleted, freed_bytes=freed_bytes)
        return self._reply(deleted, freed_bytes)

    def _old(self, keep: Collection[str], unused_since_ns: int) -> list[Image]:
        return [
            image
            for image in self._store.images()
            if image.evictable
            and image.image_id not in keep
            and self._last_wanted_ns(image) <= unused_since_ns
        ]

    def _last_wanted_ns(self, image: Image) -> int:
        """When it came, was asked for again, or was used."""
        return max(
            image.created_at.ToNanoseconds(),
            image.last_used_at.ToNanoseconds(),
            self._store.records.written_ns(image.image_id) or 0,
        )

    def _claim(self, image: Image, claims: ExitStack) -> bool:
        try:
            claims.enter_context(self._store.claimed(image.image_id))
        except ContractError:
            return False  # an operation reads or deletes it
        return True

    def _reply(self, deleted: list[str], freed_bytes: int) -> ManageImageCacheResponse:
        left = (i for i in self._store.images() if i.evictable and i.image_id not in deleted)
        return ManageImageCacheResponse(
            deleted_image_ids=deleted,
            freed_bytes=freed_bytes,
            kept_images=sum(1 for _ in left),
            store=self._store.usage(),
        )
