"""The host's images: the store, how images come into it, who uses them, and how they age out.

One implementation for all backends: a backend has disks based on the images, the
service has their bytes.
"""

from backends.images.policy import ImagePolicy
from backends.images.store import ImageStore, StoredImage
from backends.images.upload import Uploads
from backends.images.usage import ImageUsers

__all__ = ["ImagePolicy", "ImageStore", "ImageUsers", "StoredImage", "Uploads"]
