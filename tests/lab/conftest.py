"""The labs: two hosts with a directory of instances each, or one that both see."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.hosts import Lab, lab


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is here runs real guests."""
    for item in items:
        if "tests/lab/" in item.path.as_posix():
            item.add_marker(pytest.mark.libvirt)


@pytest.fixture(scope="module")
def two_hosts(short_folder: Callable[[], Path]) -> Iterator[Lab]:
    """Hosts that share nothing but a wire."""
    with lab(short_folder, shared=False) as made:
        yield made


@pytest.fixture(scope="module")
def sharing_hosts(short_folder: Callable[[], Path]) -> Iterator[Lab]:
    """Hosts that see the same directory of instances."""
    with lab(short_folder, shared=True) as made:
        yield made
