"""Standard output: documents and streams of elements, as tables, JSON or YAML."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import click
import yaml
from rich.console import Console, RenderableType

from virtrpc.cli.structure import Document, structure

FORMATS = ("table", "json", "yaml")
# What is piped is laid out as wide as it needs to be.
PIPE_COLUMNS = 1000


class Output:
    """Writes what verbs give out; `format` is one of FORMATS."""

    def __init__(self) -> None:
        self.format = "table"

    def document(self, document: Document, people: Callable[[], RenderableType]) -> None:
        """Writes the verb's only document; `people` makes what they see of it."""
        if self.format == "json":
            click.echo(json.dumps(structure(document), indent=2, ensure_ascii=False))
        elif self.format == "yaml":
            click.echo(_yaml(document), nl=False)
        else:
            self.text(people())

    def element(self, document: Document, people: Callable[[], RenderableType]) -> None:
        """Writes one element of a stream: a line of JSON, a YAML document, or text."""
        if self.format == "json":
            click.echo(json.dumps(structure(document), ensure_ascii=False))
        elif self.format == "yaml":
            click.echo("---\n" + _yaml(document), nl=False)
        else:
            self.text(people())
        sys.stdout.flush()

    def text(self, renderable: RenderableType) -> None:
        """Writes for people: styled and folded on a terminal, plain in a pipe; nothing for ""."""
        if renderable == "":
            return
        console = stdout_console()
        with console.capture() as capture:
            console.print(renderable, soft_wrap=isinstance(renderable, str))
        for line in capture.get().splitlines():
            click.echo(line.rstrip())


def stdout_console() -> Console:
    """A console for standard output as it is now."""
    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)


def _yaml(document: Document) -> str:
    return yaml.safe_dump(structure(document), sort_keys=False, allow_unicode=True)
