"""Runs the measurements and prints what they found."""

import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from tests.bench import (
    console_flood,
    console_stream,
    fan_out,
    lifecycle,
    listing,
    memory,
    migration,
    reads,
    reads_beside_spawns,
)
from tests.bench.report import Row, table, write_json

MEASUREMENTS: dict[str, Callable[[], Sequence[Row]]] = {
    "reads": reads.measure,
    "listing": listing.measure,
    "reads_beside_spawns": reads_beside_spawns.measure,
    "lifecycle": lifecycle.measure,
    "fan_out": fan_out.measure,
    "console_stream": console_stream.measure,
    "console_flood": console_flood.measure,
    "memory": memory.measure,
    "migration": migration.measure,
}


@click.command()
@click.option(
    "--only",
    type=click.Choice(list(MEASUREMENTS)),
    multiple=True,
    help="Only this measurement; repeatable.",
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Write the rows here as well."
)
def main(only: Sequence[str], json_path: Path | None) -> None:
    """Latencies and throughputs of the product, as ratios to what it stands on.

    A missed target is shown, not an error: only a measurement that fails is.
    """
    # Told to stop, the daemons and guests of a measurement go too.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    found: dict[str, Sequence[Row]] = {}
    failed = False
    for name in only or MEASUREMENTS:
        click.echo(f"{name} … ", nl=False, err=True)
        started = time.monotonic()
        try:
            found[name] = MEASUREMENTS[name]()
        except Exception:  # noqa: BLE001 - the others are measured all the same
            failed = True
            click.echo(f"failed\n{traceback.format_exc()}", err=True)
        else:
            click.echo(f"{time.monotonic() - started:.0f} s", err=True)
    click.echo(table([row for rows in found.values() for row in rows]))
    if json_path is not None:
        write_json(json_path, found)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
