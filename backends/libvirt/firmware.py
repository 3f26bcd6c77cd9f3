"""Which UEFI firmware is installed, from the descriptors that come with it.

Source: QEMU's docs/interop/firmware.json. libvirt chooses among the same files by
what a domain asks for; its domain capabilities do not say whether keys are enrolled.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# A file of the same name in an earlier folder hides those in later ones.
_FOLDERS = (Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware"))
_SECURE_BOOT = {"secure-boot", "enrolled-keys"}


def has_secure_boot(folders: tuple[Path, ...] = _FOLDERS) -> bool:
    """Whether there is firmware for x86_64 that only boots what is signed."""
    return any(
        set(descriptor.get("features", ())) >= _SECURE_BOOT and _is_for_x86(descriptor)
        for descriptor in _descriptors(folders)
    )


def _descriptors(folders: tuple[Path, ...]) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for folder in folders:
        for path in sorted(folder.glob("*.json")):
            if path.name not in seen:
                seen.add(path.name)
                # An empty or broken file hides the others of its name, too.
                with contextlib.suppress(OSError, ValueError):
                    yield json.loads(path.read_bytes())


def _is_for_x86(descriptor: dict[str, Any]) -> bool:
    targets = descriptor.get("targets", ())
    return any(target.get("architecture") == "x86_64" for target in targets)
