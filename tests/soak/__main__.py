"""`python -m tests.soak`: see the package."""

import argparse
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from deploy.demo.place import free_port
from tests.crash.verdict import end_machines
from tests.daemon import DaemonProcess
from tests.images import place_fake_images, place_guest_images
from tests.libvirtd import LibvirtdHost
from tests.soak import busy, every_step, fleet, hypervisor, migrations, models, watchers
from tests.soak.storm import Storm, Weather

Faults = list[str]


def main() -> int:
    """Prints what was done and what was wrong; 1 where anything was."""
    arguments = _arguments()
    print(f"seed {arguments.seed}", flush=True)
    all_faults: Faults = []
    for name in arguments.scenarios or SCENARIOS:
        began = time.monotonic()
        print(f"\n{name}", flush=True)
        faults = SCENARIOS[name](arguments)
        print(*(faults or ["all promises were kept"]), sep="\n")
        print(f"{time.monotonic() - began:8.0f} s", flush=True)
        all_faults += faults
    return 1 if all_faults else 0


def _storm_on_the_fake(arguments: argparse.Namespace) -> Faults:
    """Many controllers, as only a hypervisor that answers at once can stand."""
    with _daemon("fake") as daemon:
        strike = partial(_restart, daemon)
        return _storm(daemon, arguments, strike, minutes=1.5, controllers=40, instances=10,
                      kill_every_s=15)  # fmt: skip


def _storm_on_qemu(arguments: argparse.Namespace) -> Faults:
    with _daemon("libvirt") as daemon:
        strike = partial(_restart, daemon)
        return _storm(daemon, arguments, strike, minutes=3, controllers=8, instances=4,
                      kill_every_s=25)  # fmt: skip


def _hypervisor(arguments: argparse.Namespace) -> Faults:
    with _libvirtd() as (host, daemon, metrics):
        faults = hypervisor.stop_for(daemon, host, seconds=60 * arguments.scale, metrics=metrics)
        strike = partial(_restart, host)
        return faults + _storm(daemon, arguments, strike, minutes=1.5, controllers=8, instances=4,
                               kill_every_s=15)  # fmt: skip


def _restart(mortal: DaemonProcess | LibvirtdHost) -> None:
    mortal.kill()
    mortal.start()


def _storm(
    daemon: DaemonProcess, arguments: argparse.Namespace, strike: Callable[[], None], *,
    minutes: float, controllers: int, instances: int, kill_every_s: float,
) -> Faults:  # fmt: skip
    weather = Weather(
        seconds=minutes * 60 * arguments.scale,
        controllers=controllers,
        instances=instances,
        kill_every_s=max(kill_every_s * arguments.scale, 1.5),
        seed=arguments.seed,
    )
    return Storm(daemon, weather, strike=strike).run()


def _fleet(arguments: argparse.Namespace) -> Faults:
    with _daemon("libvirt") as daemon:
        return fleet.run(daemon, seconds=60 * arguments.scale)


def _busy(arguments: argparse.Namespace) -> Faults:
    with _daemon("libvirt") as daemon:
        return busy.run(daemon, seconds=60 * arguments.scale, seed=arguments.seed)


def _in_every_step(run: Callable[[Path], Faults], _arguments: argparse.Namespace) -> Faults:
    with _folder() as folder:
        return run(folder)


def _migrations(arguments: argparse.Namespace) -> Faults:
    with _folder() as folder:
        return migrations.run(folder, seconds=420 * arguments.scale, seed=arguments.seed)


def _watchers(arguments: argparse.Namespace) -> Faults:
    with _daemon("fake") as daemon:
        return watchers.run(daemon, rounds=max(round(160 * arguments.scale), 60))


def _models(arguments: argparse.Namespace) -> Faults:
    faults: Faults = []
    for backend, seconds in (("fake", 30), ("libvirt", 90)):
        with _daemon(backend) as daemon:
            faults += models.run(daemon, seconds=seconds * arguments.scale, seed=arguments.seed)
    return faults


SCENARIOS: Mapping[str, Callable[[argparse.Namespace], Faults]] = {
    "storm-fake": _storm_on_the_fake,
    "models": _models,
    "watchers": _watchers,
    "storm": _storm_on_qemu,
    "hypervisor": _hypervisor,
    "fleet": _fleet,
    "busy": _busy,
    "deaths": partial(_in_every_step, every_step.deaths),
    "cancels": partial(_in_every_step, every_step.cancels),
    "losses": partial(_in_every_step, every_step.losses),
    "migrations": _migrations,
}


@contextmanager
def _daemon(backend: str) -> Iterator[DaemonProcess]:
    with (
        _folder() as folder,
        DaemonProcess(folder, backend=backend, arguments=_volumes(folder)) as daemon,
    ):
        daemon.sources.mkdir()
        place = place_fake_images if backend == "fake" else place_guest_images
        place(daemon.image_dir)
        yield daemon.start()


@contextmanager
def _libvirtd() -> Iterator[tuple[LibvirtdHost, DaemonProcess, str]]:
    """A host with a libvirtd that can be stopped and killed, a daemon there, and its metrics."""
    metrics = f"127.0.0.1:{free_port()}"
    with _folder() as folder, _folder() as of_host:
        host = LibvirtdHost(of_host, name="soak")
        try:
            host.start()
            program = (*host.inside, sys.executable, "-m", "service.main")
            uri = "--libvirt-uri=qemu:///system"
            arguments = (uri, f"--metrics={metrics}", *_volumes(folder))
            with DaemonProcess(
                folder, backend="libvirt", arguments=arguments, program=program
            ) as daemon:
                daemon.sources.mkdir()
                place_guest_images(daemon.image_dir)
                yield host, daemon.start(), metrics
        finally:
            host.close()


def _volumes(folder: Path) -> tuple[str, ...]:
    """Where a daemon may take volumes from: its `sources`."""
    return (f"--volume-dir={folder}/sources",)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="virtrpc-soak-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            end_machines(folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=", ".join(SCENARIOS))
    parser.add_argument("--scale", type=float, default=1.0, help="of the times; 1: half an hour")
    parser.add_argument("--seed", default=uuid.uuid4().hex[:8], help="of the random verbs")
    arguments = parser.parse_args()
    if unknown := set(arguments.scenarios) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(unknown))}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
