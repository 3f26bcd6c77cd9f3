"""One instance goes by chance through all that the contract lets it, held against the model."""

import random
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from itertools import chain

from tests.daemon import DaemonProcess
from tests.instances import destroyed
from tests.model.verbs import FAMILIES, VERBS, walk, wander
from tests.model.walker import Walker
from tests.soak.invariants import residue

_SPENDS_EVERY = 3
_BY_CHANCE = 400


def run(daemon: DaemonProcess, *, seconds: float, seed: str) -> list[str]:
    """What was wrong first, and what is left after it.

    First by chance through everything, then every way through each family, as far as time goes.
    """
    families = list(FAMILIES.values())
    random.Random(seed).shuffle(families)
    by_chance = wander(VERBS, seed=seed, steps=_BY_CHANCE)
    ways = (chain(["DestroyInstance"], walk(family)) for family in families)
    return go(daemon, chain(by_chance, *ways), seconds=seconds)


def go(daemon: DaemonProcess, way: Iterable[str], *, seconds: float) -> list[str]:
    """Goes a way, as far as time goes; gives what was wrong first, and what is left after it."""
    ends_at, done, instance_id = time.monotonic() + seconds, Counter[str](), str(uuid.uuid4())
    faults: list[str] = []
    with daemon.connect() as connection:
        walker = Walker(daemon, connection, instance_id)
        try:
            for number, verb in enumerate(way):
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
