"""The classes of nouns and verbs, and the options that verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from virtrpc.cli.output import FORMATS
from virtrpc.cli.parameters import Seconds
from virtrpc.cli.session import Session

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def output_option(command: Decorated) -> Decorated:
    """`-o`: sets the session's output; the one nearest to the verb wins."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        expose_value=False,
        callback=_set_output,
        help="Format of the output.  [default: table]",
    )(command)


def _set_output(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Session).output.format = value


class Verb(click.Command):
    """A verb of a noun; takes `-o` too."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        output_option(self)


class Noun(click.Group):
    """The verbs of a noun."""

    command_class = Verb


def mutation_options(command: Decorated) -> Decorated:
    """The options of everything that changes something."""
    request_id = click.option(
        "--request-id",
        default="",
        metavar="TEXT",
        help="A repeat with the same one returns the first outcome.",
    )
    validate_only = click.option(
        "--validate-only", is_flag=True, help="Look for what stands in the way, change nothing."
    )
    return request_id(validate_only(command))


# Of verbs that are operations.
no_wait_option = click.option(
    "--no-wait", is_flag=True, help="Return the operation instead of waiting for it."
)


def timeout_option(help: str) -> Callable[[Decorated], Decorated]:  # noqa: A002 - click's word
    """`--timeout`, in seconds: how long something in the guest or the daemon may take."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=Seconds(),
        metavar="SECONDS",
        help=help,
    )
