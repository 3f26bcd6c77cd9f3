"""Random verbs of many clients on few instances, and the invariants after it.

With kills beneath it this is the storm of tests/soak.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.daemon import DaemonProcess
from tests.soak.storm import Storm, Weather

_CROWDS = {
    "fake": Weather(seconds=5, controllers=12, instances=4, kill_every_s=0, seed=""),
    "libvirt": Weather(seconds=8, controllers=5, instances=2, kill_every_s=0, seed=""),
}


@pytest.mark.parametrize("backend", _CROWDS)
def test_what_a_crowd_has_done_is_what_its_operations_say(
    model_daemons: Callable[[str], DaemonProcess], backend: str, seed: str
) -> None:
    weather = replace(_CROWDS[backend], seed=seed)
    assert Storm(model_daemons(backend), weather, strike=lambda: None).run() == []
