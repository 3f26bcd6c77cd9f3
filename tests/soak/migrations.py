"""Migrations between two real hosts, in each of which somebody dies: the whole table.

tests/lab/trials.py says who, and in which phase.
"""

import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.lab.guests import counting
from tests.lab.hosts import lab
from tests.lab.trials import TABLE, tried

_AT_LEAST = 3


def run(folder: Path, *, seconds: float, seed: str) -> list[str]:
    """What was wrong first; by chance's order, until the time is over or all were tried."""

    def make_folder() -> Path:
        made = Path(tempfile.mkdtemp(dir=folder))
        made.chmod(0o755)
        return made

    trials = list(TABLE)
    random.Random(seed).shuffle(trials)
    ends_at, done, faults = time.monotonic() + seconds, Counter[str](), list[str]()
    with lab(make_folder, shared=False) as hosts, counting(hosts, "counter") as instance_id:
        for number, (phase, victim) in enumerate(trials):
            if faults or (number >= _AT_LEAST and time.monotonic() > ends_at):
                break
            faults = tried(hosts, instance_id, phase, victim)
            done[victim.__name__] += 1
    print(f"{done.total():8} migrations, of {len(trials)} phases and victims")
    for victim_name, count in sorted(done.items()):
        print(f"{count:8} {victim_name.replace('_', ' ')}")
    return faults
