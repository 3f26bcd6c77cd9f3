"""A way by chance through all families of verbs, on real QEMU."""

from collections.abc import Callable

from tests.daemon import DaemonProcess
from tests.soak import models

_SECONDS, _STEPS = 20, 120


def test_a_guest_lives_as_the_model_says(
    model_daemons: Callable[[str], DaemonProcess], seed: str
) -> None:
    daemon = model_daemons("libvirt")
    assert models.run(daemon, seconds=_SECONDS, seed=seed, steps=_STEPS) == []
