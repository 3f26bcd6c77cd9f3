"""What the daemon's configuration allows of images."""

from dataclasses import dataclass
from pathlib import Path

from virtrpc.v1.image_pb2 import ImageDeclaration

_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class ImagePolicy:
    """Where images may come from, how large they may be, how long unused ones are kept."""

    source_dirs: tuple[Path, ...] = ()
    """Directories that PullImage may read files from; none: it may read no file."""
    url_prefixes: tuple[str, ...] = ()
    """Addresses that PullImage may fetch from; none: any but those of this host itself."""
    max_size_bytes: int = 64 * _GIB
    max_virtual_size_bytes: int = 1024 * _GIB
    max_unused_age_s: float = 24 * 3600

    def limits_of(self, declared: ImageDeclaration) -> "SizeLimits":
        """The limits of one image: those declared, never above the daemon's."""
        return SizeLimits(
            min(declared.max_size_bytes or self.max_size_bytes, self.max_size_bytes),
            min(
                declared.max_virtual_size_bytes or self.max_virtual_size_bytes,
                self.max_virtual_size_bytes,
            ),
        )


@dataclass(frozen=True)
class SizeLimits:
    """Most bytes of an image's file and of the disk in it."""

    size_bytes: int
    virtual_size_bytes: int
