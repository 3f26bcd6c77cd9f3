"""`migration step`: JSON in, JSON out."""

import json
from pathlib import Path

from virtrpc.v1 import migration_pb2 as messages

from tests.clients.python.conftest import Cli
from tests.clients.python.scripted import ScriptedDaemon

WEB_1 = "3b241101-e2bb-4255-8caf-4136c566a962"
MIGRATION = "5d1f8a52-3a6e-4c0f-8a43-000000000003"


async def test_what_one_step_answers_goes_into_the_next(
    cli: Cli, daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    data = messages.MigrationData(migration_id=MIGRATION, instance_id=WEB_1, prepared=True)
    daemon.answer("CheckSource", lambda _: messages.CheckSourceResponse(data=data))
    daemon.answer("CompleteSource", lambda _: messages.CompleteSourceResponse(data=data))
    names = {"instance_id": WEB_1, "migration_id": MIGRATION}
    file = tmp_path / "request.json"
    file.write_text(json.dumps(names | {"destination_uri": "grpc://b:1", "check": {}}))
    answer = json.loads((await cli("migration", "step", "check-source", str(file))).out)
    file.write_text(json.dumps(names | {"data": answer["data"]}))
    outcome = await cli("migration", "step", "complete-source", str(file), "-o", "yaml")
    assert outcome.out.startswith("data:")
    (request,) = daemon.requests["CompleteSource"]
    assert request.data == data


async def test_what_is_no_request_is_wrong_usage(
    cli: Cli, daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps({"instance": WEB_1}))
    outcome = await cli("migration", "step", "prepare", str(file))
    assert outcome.code == 2
    assert 'no field named "instance"' in outcome.err
    assert (await cli("migration", "step", "prepare", str(tmp_path / "none"))).code == 2
    assert not daemon.requests
