"""Random verbs of many clients on few instances, and the invariants after it.

With kills beneath it this is the storm of tests/soak.
"""

from collections.abc import Callable

import pytest

from tests.daemon import DaemonProcess
from tests.soak.storm import Storm, Weather


@pytest.mark.parametrize(
    ("backend", "seconds", "clients", "instances"), [("fake", 8, 12, 4), ("libvirt", 12, 5, 2)]
)
def test_what_a_crowd_has_done_is_what_its_operations_say(
    model_daemons: Callable[[str], DaemonProcess],
    backend: str,
    seconds: int,
    clients: int,
    instances: int,
    seed: str,
) -> None:
    weather = Weather(
        seconds=seconds, controllers=clients, instances=instances, kill_every_s=0, seed=seed
    )
    assert Storm(model_daemons(backend), weather, strike=lambda: None).run() == []
