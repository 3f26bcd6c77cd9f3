"""Random verbs of many controllers on few instances, and something that is killed beneath them.

A seed takes the verbs anew in the same order for each controller, though never
at the same moments.
"""

import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from virtrpc.client import Client
from virtrpc.v1.host_pb2 import GetHostRequest
from virtrpc.v1.spec_pb2 import GRAPHICS_TYPE_VNC, InstanceSpec

from tests.crash.cases import EMPTY
from tests.daemon import DaemonProcess
from tests.instances import small_spec
from tests.soak.controllers import Controller, Listener, Turns
from tests.soak.invariants import (
    CANARY,
    Usage,
    defects,
    delete_snapshots,
    destroy_all,
    residue,
    told_secrets,
    two_of_one,
    unfinished,
    unlike_its_operations,
)

LOOK_S = 0.5
VOLUME_BYTES = 1 << 20
END_S = 120.0


@dataclass(frozen=True)
class Weather:
    """How hard it storms."""

    seconds: float
    controllers: int
    instances: int
    kill_every_s: float
    """0: never."""
    seed: str


class Storm:
    """One daemon and its controllers. `strike` kills something and starts it again."""

    def __init__(
        self, daemon: DaemonProcess, weather: Weather, *, strike: Callable[[], object]
    ) -> None:
        self._daemon = daemon
        self._strike = strike
        self._strikes = 0
        self._weather = weather
        self._ends_at = time.monotonic() + weather.seconds
        self._random = random.Random(weather.seed)
        instance_ids = [str(uuid.uuid4()) for _ in range(weather.instances)]
        spec = _spec(daemon)
        for instance_id in instance_ids:
            for name in (instance_id, f"{instance_id}.new"):  # as the table of verbs names volumes
                (daemon.sources / name).write_bytes(bytes(VOLUME_BYTES))
        turns = Turns()
        self._controllers = [
            Controller(
                daemon,
                instance_ids=instance_ids,
                spec=spec,
                turns=turns,
                seed=f"{weather.seed}-{number}",
            )
            for number in range(weather.controllers)
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
        """Looks on, and strikes now and then."""
        faults: list[str] = []
        kill_every_s = self._weather.kill_every_s
        kill_at = time.monotonic() + kill_every_s
        while time.monotonic() < self._ends_at and not faults:
            time.sleep(LOOK_S)
            faults += two_of_one(self._daemon)
            if kill_every_s and time.monotonic() > kill_at:
                self._strike()
                self._strikes += 1
                kill_at = time.monotonic() + kill_every_s * self._random.uniform(0.5, 1.5)
        return faults

    def _end(self, before: Usage) -> list[str]:
        """Lets everything end, compares, and takes it away."""
        with Client(self._daemon.address, timeout_s=END_S) as client:
            # gRPC may still be waiting to try again after the last kill.
            client.hosts.GetHost(GetHostRequest(), wait_for_ready=True)
            ends_at = time.monotonic() + END_S
            while (pending := unfinished(client)) and time.monotonic() < ends_at:
                time.sleep(LOOK_S)
            # The fake forgets its instances when it is killed.
            forgets = self._daemon.backend == "fake" and self._weather.kill_every_s
            wrong = [] if forgets else unlike_its_operations(client)
            destroy_all(client)
            delete_snapshots(client)
        return [
            *defects(self._daemon),
            *pending,
            *wrong,
            *residue(self._daemon),
            *told_secrets(self._daemon),
            *Usage(self._daemon).grown_since(before),
        ]

    def _report(self, listener: Listener) -> None:
        answers: Counter[str] = Counter()
        for controller in self._controllers:
            answers += controller.answers
        for answer, count in sorted(answers.items()):
            print(f"{count:8} {answer}")
        print(f"{self._strikes:8} kills")
        print(f"{listener.count:8} events, none missing" if not listener.faults else "")


def _spec(daemon: DaemonProcess) -> InstanceSpec:
    """A guest that boots its kernel, beside a root disk that can be copied and made anew."""
    (daemon.image_dir / f"{EMPTY}.raw").write_bytes(bytes(VOLUME_BYTES))
    spec = small_spec(backend=daemon.backend)
    spec.image.image_id = EMPTY
    spec.flavor.swap_mib = 1
    spec.machine.graphics = GRAPHICS_TYPE_VNC
    spec.guest.admin_password = CANARY
    return spec
