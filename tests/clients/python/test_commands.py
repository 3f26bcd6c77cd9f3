"""Every verb that a daemon implements is reached by a command, and every command helps."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import virtrpc
from virtrpc.cli.root import root
from virtrpc.v1 import host_pb2

from service.verbs import all_verbs
from tests.clients.python.commands import BETWEEN_DAEMONS, COMMANDS
from tests.clients.python.conftest import Cli
from tests.daemon import DaemonProcess

PACKAGE = Path(virtrpc.__file__).parent


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    """All commands that do something, by their words."""
    if not isinstance(command, click.Group):
        yield " ".join(path)
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from commands(below, (*path, name))


ALL = sorted(commands(root))


def test_every_implemented_verb_has_a_command(make_daemon: Callable[..., DaemonProcess]) -> None:
    with make_daemon().start() as daemon, daemon.connect() as connection:
        reply = connection.hosts.GetCapabilities(host_pb2.GetCapabilitiesRequest(), timeout=10)
    supported = {capability.name for capability in reply.capabilities if capability.supported}
    implemented = {v.name for v in all_verbs().values() if v.capability in supported}
    assert implemented - set(COMMANDS) - BETWEEN_DAEMONS == set(), (
        "a line in tests/clients/python/commands.py"
    )


@pytest.mark.parametrize("rpc", COMMANDS)
def test_command_of_a_verb_is_there_and_calls_it(rpc: str) -> None:
    assert rpc in {verb.name for verb in all_verbs().values()}
    assert COMMANDS[rpc] in ALL
    own = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "v1"]
    assert any(re.search(rf"\.{rpc}\b", path.read_text(encoding="utf-8")) for path in own)


@pytest.mark.parametrize("command", ALL)
async def test_command_tells_what_it_does(cli: Cli, command: str) -> None:
    outcome = await cli(*command.split(), "--help")
    assert outcome.code == 0
    usage, _, sentence = (line.strip() for line in outcome.out.splitlines()[:3])
    assert usage.startswith(f"Usage: virtrpc {command}")
    assert sentence[:1].isupper()
