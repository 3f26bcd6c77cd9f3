"""The verbs that change the image store; its reads and streams are the daemon's own."""

from abc import abstractmethod

from virtrpc.v1 import image_pb2

from backends.contract.backend import Facet
from backends.work import Work


class Images(Facet):
    """Images fetched, deleted and aged out."""

    @abstractmethod
    def pull_image(self, request: image_pb2.PullImageRequest, work: Work) -> image_pb2.Image:
        """See ImageService.PullImage."""

    @abstractmethod
    def delete_image(
        self, request: image_pb2.DeleteImageRequest, work: Work
    ) -> image_pb2.DeleteImageResponse:
        """See ImageService.DeleteImage."""

    @abstractmethod
    def manage_image_cache(
        self, request: image_pb2.ManageImageCacheRequest, work: Work
    ) -> image_pb2.ManageImageCacheResponse:
        """See ImageService.ManageImageCache."""
