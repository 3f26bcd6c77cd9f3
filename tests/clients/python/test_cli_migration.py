"""`migration live|abort|force|watch`."""

import json
from collections.abc import Iterator

import grpc
from virtrpc.v1 import migration_pb2 as messages
from virtrpc.v1.migration_pb2 import LiveMigrationResult, MigrationProgress

from tests.clients.python.conftest import Cli
from tests.clients.python.scripted import ScriptedDaemon, refusal
from tests.clients.python.test_cli_long_running import WEB_1, serve, succeeded

TO = "grpc://b.example:50051"


def result() -> LiveMigrationResult:
    moved = LiveMigrationResult(
        instance_id=WEB_1, destination_uri=TO, transferred_bytes=78 << 20, migration_id=WEB_1
    )
    moved.total_time.FromMilliseconds(1300)
    moved.downtime.FromMilliseconds(200)
    return moved


async def test_live_says_where_it_is_and_how_long_it_took(daemon: ScriptedDaemon, cli: Cli) -> None:
    serve(daemon, "LiveMigrateInstance", succeeded(result()))
    outcome = await cli("migration", "live", WEB_1, "--to", TO)
    assert outcome.code == 0, outcome.err
    assert f"is at {TO}" in outcome.out
    assert "78 MiB sent" in outcome.out


async def test_live_asks_for_what_is_given_and_leaves_the_rest(
    daemon: ScriptedDaemon, cli: Cli
) -> None:
    serve(daemon, "LiveMigrateInstance", succeeded(result()))
    given = ("--storage", "copy", "--bandwidth", "20", "--post-copy", "--after", "5")
    await cli("migration", "live", WEB_1, "--to", TO, *given, "--then", "force-complete")
    (request,) = daemon.requests["LiveMigrateInstance"]
    expected = messages.LiveMigrationOptions(
        storage=messages.MIGRATION_STORAGE_COPY,
        bandwidth_mib_per_s=20,
        post_copy=True,
        timeout_action=messages.MIGRATION_TIMEOUT_ACTION_FORCE_COMPLETE,
    )
    expected.timeout.FromSeconds(5)
    assert request.options == expected
    assert (request.destination_uri, request.hypervisor_uri) == (TO, "")


async def test_abort_and_force_say_what_they_did(daemon: ScriptedDaemon, cli: Cli) -> None:
    daemon.answer("AbortLiveMigration", lambda _: messages.AbortLiveMigrationResponse())
    daemon.answer(
        "ForceCompleteLiveMigration",
        lambda _: messages.ForceCompleteLiveMigrationResponse(
            method=messages.FORCE_COMPLETE_METHOD_PAUSE
        ),
    )
    assert "migration aborted" in (await cli("migration", "abort", WEB_1)).out
    assert "forced by pause" in (await cli("migration", "force", WEB_1)).out


async def test_refused_abort_has_its_exit_code(daemon: ScriptedDaemon, cli: Cli) -> None:
    def refuse(_request: object) -> messages.AbortLiveMigrationResponse:
        raise refusal(grpc.StatusCode.FAILED_PRECONDITION, reason="NO_MIGRATION")

    daemon.answer("AbortLiveMigration", refuse)
    outcome = await cli("migration", "abort", WEB_1)
    assert outcome.code == 64 + grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert "NO_MIGRATION" in outcome.err


async def test_watch_shows_phases_as_lines_and_elements(daemon: ScriptedDaemon, cli: Cli) -> None:
    def stream(_request: object) -> Iterator[messages.WatchMigrationResponse]:
        progress = MigrationProgress(phase=messages.MIGRATION_PHASE_COPYING_MEMORY)
        progress.memory.total_bytes, progress.memory.remaining_bytes = 4 << 20, 1 << 20
        yield messages.WatchMigrationResponse(progress=progress)
        done = MigrationProgress(phase=messages.MIGRATION_PHASE_SUCCEEDED, done=True)
        yield messages.WatchMigrationResponse(progress=done)

    daemon.answer("WatchMigration", stream)
    lines = (await cli("migration", "watch", WEB_1)).out.splitlines()
    assert lines[0].split("  ")[1] == "memory 1 MiB of 4 MiB left"
    assert len(lines) == 2
    document = (await cli("-o", "json", "migration", "watch", WEB_1)).out.splitlines()
    assert json.loads(document[-1])["done"]
