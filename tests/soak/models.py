"""One instance goes by chance through all that the contract lets it, held against the model."""

import time
import uuid
from collections import Counter

from tests.daemon import DaemonProcess
from tests.instances import destroyed
from tests.model.verbs import VERBS, wander
from tests.model.walker import Walker
from tests.soak.invariants import residue

_SPENDS_EVERY = 3


def run(daemon: DaemonProcess, *, seconds: float, seed: str, steps: int = 1 << 20) -> list[str]:
    """What was wrong first, and what is left after it; of so many steps at most."""
    ends_at, done, instance_id = time.monotonic() + seconds, Counter[str](), str(uuid.uuid4())
    faults: list[str] = []
    with daemon.connect() as connection:
        walker = Walker(daemon, connection, instance_id)
        try:
            for number, verb in enumerate(wander(VERBS, seed=seed, steps=steps)):
                if time.monotonic() > ends_at:
                    break
                walker.go(verb)
                done[verb] += 1
                if number % _SPENDS_EVERY == 0:
                    walker.spend()
        except AssertionError as error:
            faults = [f"unlike the model after {done.total()} steps: {error}"]
        destroyed(connection, instance_id)
    print(f"{done.total():8} steps through {len(done)} verbs")
    return [*faults, *residue(daemon)]
