"""Fixtures of the crash tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.operations import execution
from tests.crash.engine import Engine


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    """An engine of the test's own, ready to work; it retries without delay."""
    monkeypatch.setattr(execution, "RETRY_S", 0)
    made = Engine(tmp_path)
    made.operations.recover()
    yield made
    made.close()
