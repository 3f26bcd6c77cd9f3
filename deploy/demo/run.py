"""The run: the daemon is started, the tour made, everything taken away again."""

import argparse
import asyncio
import shlex
import signal
import sys
from pathlib import Path

from virtrpc.client import AsyncClient
from virtrpc.errors import ServiceError

from deploy.demo.daemon import Daemon, DaemonEndedError
from deploy.demo.lines import show
from deploy.demo.place import ROOT, Place, usual_folder
from deploy.demo.residue import residue
from deploy.demo.tour import NAME, Tour, destroy_all, first
from deploy.demo.turn import OccupiedError, take_turn

_TIMEOUT_S = 100.0


def main() -> int:
    """Runs it; 0 where everything came and nothing was left behind."""
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument("--once", action="store_true", help="destroy the guest once it has spoken")
    parser.add_argument("--folder", type=Path, default=usual_folder(), help="made, and removed")
    parser.add_argument("--timeout", type=float, default=_TIMEOUT_S, metavar="SECONDS")
    arguments = parser.parse_args()
    place = Place.at(arguments.folder.resolve())
    try:
        daemon = Daemon(place, turn=take_turn(place.folder))
    except OccupiedError as error:
        print(f"run: {error}", file=sys.stderr)
        return 1
    place.prepare()
    failures = asyncio.run(
        _demonstrate(place, daemon, once=arguments.once, timeout_s=arguments.timeout)
    )
    if failures:
        print(*daemon.last_words(), *(f"run: {failure}" for failure in failures), sep="\n",
              file=sys.stderr)  # fmt: skip
        return 1
    place.remove()
    show("run", "the guest is destroyed, the daemon stopped; nothing is left behind")
    return 0


async def _demonstrate(place: Place, daemon: Daemon, *, once: bool, timeout_s: float) -> list[str]:
    """What has gone wrong, and what was left behind."""
    failures = []
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    show("run", f"virtrpcd on {place.why}; its log: {place.log}")
    await daemon.start()
    try:
        await first(_visit(daemon, stop=stop, once=once, timeout_s=timeout_s), daemon.end())
    except* TimeoutError:
        failures.append(f"not done after {timeout_s:.0f} s")
    except* (ServiceError, DaemonEndedError) as group:
        failures.extend(str(error) for error in group.exceptions)
    finally:
        await daemon.stop()
    return [*failures, *(f"left behind: {what}" for what in residue(place))]


async def _visit(daemon: Daemon, *, stop: asyncio.Event, once: bool, timeout_s: float) -> None:
    async with AsyncClient(daemon.address) as client:
        async with asyncio.timeout(timeout_s):
            await daemon.serving()
        await destroy_all(client)  # what a run that was killed has left
        tour = Tour(client, once=once, timeout_s=timeout_s)
        try:
            await tour.run(stop=stop, serving=lambda: _say_what_next(daemon))
        except ExceptionGroup:
            await destroy_all(client, tour.instance_id)
            raise


def _say_what_next(daemon: Daemon) -> None:
    print(
        "",
        "The guest runs until Ctrl-C. In another terminal:",
        "",
        f"    cd {shlex.quote(str(ROOT))}",
        f"    export VIRTRPC_ADDRESS={shlex.quote(daemon.address)} PATH=$PWD/.venv/bin:$PATH",
        "    virtrpc instance list",
        f"    virtrpc instance pause {NAME}       # an event, here and in `virtrpc event watch`",
        f"    virtrpc instance unpause {NAME}",
        f"    virtrpc console follow {NAME}",
        "    virtrpc operation list",
        "    virtrpc --help",
        f"    curl -s http://{daemon.metrics}/metrics | grep ^virtrpc",
        "",
        f"Any gRPC client reaches the daemon at {daemon.addresses[-1]}, with reflection.",
        "",
        sep="\n",
        flush=True,
    )
