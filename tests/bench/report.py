"""What a measurement has found: rows, shown as a table and written as JSON."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_HEADINGS = ("", "median", "against", "median", "ratio", "target", "")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure, and what it is held against.

    A target is one of the ratio; of the figure itself where there is nothing to
    hold it against.
    """

    what: str
    value: float
    unit: str
    """ "s", "B", "B/s" or "/s"; "" for counts."""
    against: str = ""
    base: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ratio(self) -> float | None:
        """Value by base."""
        return self.value / self.base if self.base else None

    @property
    def missed(self) -> bool:
        """It does not reach its target."""
        judged = self.value if self.base is None else self.ratio
        if judged is None:
            return False
        too_much = self.at_most is not None and judged > self.at_most
        return too_much or (self.at_least is not None and judged < self.at_least)


def table(rows: Sequence[Row]) -> str:
    """The rows under headings, in columns."""
    lines = [_HEADINGS, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    left = (0, 2)
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def write_json(path: Path, found: Mapping[str, Sequence[Row]]) -> None:
    """All rows by measurement, and the machine they were measured on."""
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()}
    rows = {
        name: [{**asdict(row), "ratio": row.ratio, "missed": row.missed} for row in rows]
        for name, rows in found.items()
    }
    path.write_text(json.dumps({"machine": machine, "measurements": rows}, indent=1) + "\n")


def readable(value: float, unit: str) -> str:
    """A figure with a unit that suits its size."""
    if unit == "s":
        return _scaled(value * 1e6, 1000, ("µs", "ms", "s"))
    if unit == "B":
        return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB"))
    if unit == "B/s":
        return _scaled(value, 1000, ("B/s", "kB/s", "MB/s", "GB/s"))
    return f"{value:,.0f}{unit}"


def _cells(row: Row) -> tuple[str, ...]:
    base = "" if row.base is None else readable(row.base, row.unit)
    ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
    verdict = "MISSED" if row.missed else ""
    return (
        row.what,
        readable(row.value, row.unit),
        row.against,
        base,
        ratio,
        _target(row),
        verdict,
    )


def _target(row: Row) -> str:
    limit = row.at_least if row.at_most is None else row.at_most
    if limit is None:
        return ""
    text = readable(limit, row.unit) if row.base is None else f"{limit:g}"
    return f"{'≥' if row.at_most is None else '≤'} {text}"


def _scaled(value: float, step: int, units: Sequence[str]) -> str:
    for unit in units[:-1]:
        if abs(value) < step:
            return f"{value:.3g} {unit}"
        value /= step
    return f"{value:.4g} {units[-1]}"
