"""A way by chance through all families of verbs, on real QEMU."""

from collections.abc import Callable

from tests.daemon import DaemonProcess
from tests.model.verbs import VERBS, wander
from tests.soak import models

_SECONDS, _STEPS = 20, 120


def test_a_guest_lives_as_the_model_says(
    model_daemons: Callable[[str], DaemonProcess], seed: str
) -> None:
    daemon = model_daemons("libvirt")
    way = wander(VERBS, seed=seed, steps=_STEPS)
    assert models.go(daemon, way, seconds=_SECONDS) == []
