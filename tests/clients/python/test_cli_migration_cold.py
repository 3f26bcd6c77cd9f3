"""`migration cold|finish|confirm|revert` and `instance resize`."""

import json
from collections.abc import Iterator
from pathlib import Path

from virtrpc.v1 import instance_pb2, types_pb2
from virtrpc.v1 import migration_pb2 as messages
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.migration_pb2 import MigrationProgress
from virtrpc.v1.operation_pb2 import Operation

from tests.clients.python.conftest import Cli
from tests.clients.python.scripted import ScriptedDaemon
from tests.clients.python.test_cli_long_running import WEB_1, serve, succeeded

TO = "grpc://b.example:50051"
MOVE = "11111111-2222-4333-8444-555555555555"
RUNNING = types_pb2.POWER_STATE_RUNNING


def released() -> messages.MigrateDiskAndPowerOffResponse:
    data = messages.MigrationData(
        migration_id=MOVE, instance_id=WEB_1, destination_uri=TO, released=True
    )
    made = messages.MigrateDiskAndPowerOffResponse(
        data=data, transferred_bytes=3 << 20, old_power_state=RUNNING
    )
    made.total_time.FromSeconds(4)
    return made


def web() -> Instance:
    made = Instance(instance_id=WEB_1, name="web-1", power_state=RUNNING)
    made.spec.flavor.vcpus, made.spec.flavor.memory_mib = 1, 512
    return made


def describe(daemon: ScriptedDaemon) -> None:
    """The daemon knows the instance, and its last migration."""
    daemon.answer("GetInstance", lambda _: instance_pb2.GetInstanceResponse(instance=web()))

    def progress(_request: object) -> Iterator[messages.WatchMigrationResponse]:
        last = MigrationProgress(migration_id=MOVE, done=True)
        yield messages.WatchMigrationResponse(progress=last)

    daemon.answer("WatchMigration", progress)


async def test_cold_says_what_was_sent_and_where_it_goes_on(
    daemon: ScriptedDaemon, cli: Cli
) -> None:
    describe(daemon)
    serve(daemon, "MigrateDiskAndPowerOff", succeeded(released()))
    outcome = await cli("migration", "cold", WEB_1, "--to", TO, "--memory", "1024")
    assert outcome.code == 0, outcome.err
    assert f"3 MiB sent: finish it at {TO}" in outcome.out
    (request,) = daemon.requests["MigrateDiskAndPowerOff"]
    assert (request.flavor.vcpus, request.flavor.memory_mib) == (1, 1024)
    assert not request.HasField("timeout")


async def test_finish_takes_what_cold_gave_out(
    daemon: ScriptedDaemon, cli: Cli, tmp_path: Path
) -> None:
    describe(daemon)
    serve(daemon, "MigrateDiskAndPowerOff", succeeded(released()))
    given = await cli("-o", "json", "migration", "cold", WEB_1, "--to", TO)
    assert json.loads(given.out)["data"]["released"]
    file = tmp_path / "move.json"
    file.write_text(given.out)
    serve(daemon, "FinishMigration", succeeded(web()))
    outcome = await cli("migration", "finish", str(file))
    assert outcome.code == 0, outcome.err
    (request,) = daemon.requests["FinishMigration"]
    assert (request.data, request.power_on) == (released().data, True)


async def test_finish_without_data_is_told(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text("[]")
    outcome = await cli("migration", "finish", str(file))
    assert outcome.code != 0
    assert "migration cold" in outcome.err


async def test_confirm_and_revert_take_the_last_migration(daemon: ScriptedDaemon, cli: Cli) -> None:
    describe(daemon)
    daemon.answer("ConfirmMigration", lambda _: messages.ConfirmMigrationResponse())
    daemon.answer("RevertMigration", lambda _: messages.RevertMigrationResponse(instance=web()))
    assert "migration confirmed" in (await cli("migration", "confirm", WEB_1)).out
    assert "running" in (await cli("migration", "revert", WEB_1, "--destination-fenced")).out
    (confirmed,) = daemon.requests["ConfirmMigration"]
    (reverted,) = daemon.requests["RevertMigration"]
    assert (confirmed.migration_id, reverted.migration_id) == (MOVE, MOVE)
    assert reverted.destination_fenced and reverted.power_on


async def test_resize_takes_both_halves_and_leaves_the_choice(
    daemon: ScriptedDaemon, cli: Cli
) -> None:
    describe(daemon)
    serve(daemon, "MigrateDiskAndPowerOff", succeeded(released()), succeeded(web()))
    finishing = Operation(operation_id="op-2", verb="FinishMigration", instance_id=WEB_1)
    daemon.answer("FinishMigration", lambda _: finishing)
    outcome = await cli("instance", "resize", WEB_1, "--vcpus", "4")
    assert "resized, to be confirmed or reverted" in outcome.out, outcome.err
    (request,) = daemon.requests["MigrateDiskAndPowerOff"]
    assert (request.flavor.vcpus, request.destination_uri) == (4, "")


async def test_resize_to_nothing_is_a_mistake(daemon: ScriptedDaemon, cli: Cli) -> None:
    describe(daemon)
    outcome = await cli("instance", "resize", WEB_1)
    assert outcome.code == 2
    assert "what is to be larger" in outcome.err
