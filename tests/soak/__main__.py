"""`python -m tests.soak`: see the package."""

import argparse
import random
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path

from virtrpc.client import Client

from tests.daemon import DaemonProcess
from tests.images import place_fake_images, place_guest_images
from tests.instances import small_spec
from tests.soak.controllers import Controller, Listener
from tests.soak.invariants import Usage, destroy_all, residue, two_of_one, unfinished

LOOK_S = 0.5


def main() -> int:
    """Prints what was done and what was wrong; 1 where anything was."""
    arguments = _arguments()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="virtrpc-soak-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with DaemonProcess(folder, backend=arguments.backend) as daemon:
            place = place_fake_images if arguments.backend == "fake" else place_guest_images
            place(daemon.image_dir)
            faults = Soak(daemon.start(), arguments).run()
    print(*(faults or ["all promises were kept"]), sep="\n")
    return 1 if faults else 0


class Soak:
    """One daemon and its controllers."""

    def __init__(self, daemon: DaemonProcess, arguments: argparse.Namespace) -> None:
        self._daemon = daemon
        self._kill_s: float = arguments.kill_every
        self._ends_at = time.monotonic() + arguments.seconds
        self._random = random.Random(arguments.seed)
        instance_ids = [str(uuid.uuid4()) for _ in range(arguments.instances)]
        self._controllers = [
            Controller(
                daemon.address,
                instance_ids=instance_ids,
                spec=small_spec(backend=daemon.backend),
                seed=f"{arguments.seed}-{number}",
            )
            for number in range(arguments.controllers)
        ]

    def run(self) -> list[str]:
        """Everything that was wrong."""
        before = Usage(self._daemon)
        listener = Listener(self._daemon.address)
        listener.start()
        for controller in self._controllers:
            controller.start()
        faults = self._watch()
        for controller in self._controllers:
            controller.stop.set()
        for controller in self._controllers:
            controller.join()
        faults += self._end(before)
        listener.close()
        self._report(listener)
        faults += [fault for controller in self._controllers for fault in controller.faults]
        return faults + listener.faults

    def _watch(self) -> list[str]:
        """Looks on, and kills the daemon now and then."""
        faults: list[str] = []
        kill_at = time.monotonic() + self._kill_s
        while time.monotonic() < self._ends_at and not faults:
            time.sleep(LOOK_S)
            faults += two_of_one(self._daemon)
            if self._kill_s and time.monotonic() > kill_at:
                self._daemon.kill()
                self._daemon.start()
                kill_at = time.monotonic() + self._kill_s * self._random.uniform(0.5, 1.5)
        return faults

    def _end(self, before: Usage) -> list[str]:
        """Lets everything end, and takes it away."""
        with Client(self._daemon.address, timeout_s=120) as client:
            ends_at = time.monotonic() + 120
            while (pending := unfinished(client)) and time.monotonic() < ends_at:
                time.sleep(LOOK_S)
            destroy_all(client)
            return [*pending, *residue(self._daemon), *Usage(self._daemon).grown_since(before)]

    def _report(self, listener: Listener) -> None:
        answers: Counter[str] = Counter()
        for controller in self._controllers:
            answers += controller.answers
        for answer, count in sorted(answers.items()):
            print(f"{count:8} {answer}")
        print(f"{listener.count:8} events")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--backend", choices=("fake", "libvirt"), default="libvirt")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--controllers", type=int, default=8)
    parser.add_argument("--instances", type=int, default=4)
    parser.add_argument("--kill-every", type=float, default=30, help="seconds; 0: never")
    parser.add_argument("--seed", default=uuid.uuid4().hex[:8])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
