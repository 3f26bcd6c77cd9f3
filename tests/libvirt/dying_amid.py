"""`virtrpcd` that dies in the midst of what QEMU does to a disk.

python -m tests.libvirt.dying_amid MOMENT [flags of virtrpcd]
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import backends.libvirt.holds
from backends.libvirt.block_jobs import BlockJob
from backends.libvirt.overlays import Overlays
from service.main import main

DIED = 137
# By moment, what it does not live to do or, after "after", to return from.
MOMENTS = {
    "before_turn": (BlockJob, "_turn"),
    "before_release": (backends.libvirt.holds, "_release"),
    "after_overlay": (Overlays, "cut"),
}


def dying(moment: str, call: Callable[..., object]) -> Callable[..., None]:
    """A call that the daemon does not outlive."""

    def die(*args: Any, **kwargs: Any) -> None:
        if moment.startswith("after_"):
            call(*args, **kwargs)
        os._exit(DIED)

    return die


if __name__ == "__main__":
    chosen = sys.argv.pop(1)
    place, name = MOMENTS[chosen]
    setattr(place, name, dying(chosen, getattr(place, name)))
    main()
