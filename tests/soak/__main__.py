"""Command line of the soak; see the package's docstring."""

import argparse
import random
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.images import place_fake_images, place_guest_images
from tests.soak.rounds import BrokenInvariantError, Soak


def main() -> int:
    """Runs rounds until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--backend", choices=("fake", "libvirt", "both"), default="both")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    arguments = parser.parse_args()
    backends = ("fake", "libvirt") if arguments.backend == "both" else (arguments.backend,)
    print(f"seed {arguments.seed}, {arguments.minutes:g} min", flush=True)
    for backend in backends:
        if not _soak(backend, arguments.seed, seconds=arguments.minutes * 60 / len(backends)):
            return 1
    return 0


def _soak(backend: str, seed: int, *, seconds: float) -> bool:
    folder = Path(tempfile.mkdtemp(prefix="virtrpc-soak-"))
    folder.chmod(0o711)
    soak = Soak(folder, backend=backend, dice=random.Random(seed))
    place = place_fake_images if backend == "fake" else place_guest_images
    place(soak.daemon.image_dir)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            soak.round()
        soak.finish()
    except BrokenInvariantError as error:
        print(f"{backend}: BROKEN (seed {seed}): {error}; state kept in {folder}")
        soak.daemon.kill()
        return False
    print(f"{backend}: {soak.tally}")
    shutil.rmtree(folder)
    return True


if __name__ == "__main__":
    sys.exit(main())
