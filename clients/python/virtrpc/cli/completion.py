"""`completion`: the scripts by which shells complete the command line."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

COMPLETE_VARIABLE = "_VIRTRPC_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def noun(context: click.Context, shell: str) -> None:
    """Writes the script that completes `virtrpc` in a shell.

    \b
    bash: source <(virtrpc completion bash)
    zsh:  source <(virtrpc completion zsh)
    fish: virtrpc completion fish | source
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has these three
    script = kind(context.find_root().command, {}, "virtrpc", COMPLETE_VARIABLE)
    click.echo(script.source())
