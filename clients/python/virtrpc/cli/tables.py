"""Tables for people: listings, and the properties of one thing.

Made for 80 columns: identifiers are never cut or folded, other cells fold, and
columns marked `wide` are left out where a terminal has no room for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from virtrpc.cli.output import stdout_console

# From this width on a terminal has room for the wide columns.
WIDE_COLUMNS = 110
STATE_STYLES = {
    "running": "green",
    "succeeded": "green",
    "paused": "yellow",
    "suspended": "yellow",
    "rolling-back": "yellow",
    "cancelled": "yellow",
    "crashed": "red",
    "failed": "red",
    "shutdown": "dim",
}


@dataclass(frozen=True)
class Column:
    """A column of a listing. `whole`: its cells are kept in one piece."""

    title: str
    whole: bool = False
    right: bool = False
    wide: bool = False


def state(word: str) -> Text:
    """The word of a state, in its colour."""
    return Text(word, style=STATE_STYLES.get(word, ""))


def listing(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table with a title above each column and a line for each row."""
    width = stdout_console().width
    shown = [
        index for index, column in enumerate(columns) if width >= WIDE_COLUMNS or not column.wide
    ]
    cells = [[row[index] for index in shown] for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, index in enumerate(shown):
        column = columns[index]
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=column.whole,
            overflow="ignore" if column.whole else "fold",
            min_width=max((len(row[place]) for row in cells), default=0) if column.whole else None,
        )
    for row in cells:
        table.add_row(*row)
    return table


def properties(facts: Iterable[tuple[str, str | Text]]) -> Table:
    """A line for each fact that is not empty: its name, its value."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        if len(value):
            table.add_row(name, value)
    return table


def sections(*tables: Table) -> Group:
    """Tables one below the other, but for empty ones, with a blank line between them."""
    filled = [table for table in tables if table.row_count]
    lines: list[RenderableType] = []
    for table in filled:
        lines += ["", table] if lines else [table]
    return Group(*lines)
