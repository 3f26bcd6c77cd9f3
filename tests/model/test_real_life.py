"""A way by chance through all families of verbs, on real QEMU."""

from collections.abc import Callable

import pytest

from tests.daemon import DaemonProcess
from tests.model.verbs import VERBS, wander
from tests.soak import models

_SECONDS, _STEPS = 20, 120
_SEED = "s4"
"""Always the same way where nobody says --seed: others are for `make soak`."""


def test_a_guest_lives_as_the_model_says(
    model_daemons: Callable[[str], DaemonProcess], pytestconfig: pytest.Config
) -> None:
    daemon = model_daemons("libvirt")
    way = wander(VERBS, seed=pytestconfig.getoption("--seed") or _SEED, steps=_STEPS)
    assert models.go(daemon, way, seconds=_SECONDS) == []
