"""A process with a Reaper of its own, as tests look at it from outside.

    python -m tests.libvirt.reaping statuses|orphans|closed

`statuses` runs many children at once while orphans die, and prints the exit codes
that it got beside those it should have got. `orphans` prints how many orphans were
left unreaped after they died, beside a dead child that nobody waits for.
"""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from backends.libvirt.embedded import Reaper

_CHILDREN, _WORKERS, _ORPHANS = 200, 16, 20
_TIMEOUT_S = 20
# A daemon's way: its parent ends, and it lives on in a session of its own.
_LEAVE_ORPHAN = "setsid sleep 0.05 </dev/null >/dev/null 2>&1 & echo $!"


def leave_orphan() -> int:
    """Starts a process whose parent has ended; gives its id."""
    done = subprocess.run(
        ["sh", "-c", _LEAVE_ORPHAN], check=True, stdout=subprocess.PIPE, timeout=_TIMEOUT_S
    )
    return int(done.stdout)


def exit_code_of(number: int) -> int:
    """Runs a child that ends with a code of its own; every third one leaves an orphan too."""
    if number % 3 == 0:
        leave_orphan()
    command = ["sh", "-c", f"exit {number % 100}"]
    return subprocess.run(command, check=False, timeout=_TIMEOUT_S).returncode


def statuses() -> object:
    with ThreadPoolExecutor(_WORKERS) as pool:
        got = list(pool.map(exit_code_of, range(_CHILDREN)))
    return {"got": got, "wanted": [number % 100 for number in range(_CHILDREN)]}


def orphans() -> object:
    unwaited = subprocess.Popen(["true"])
    left = {leave_orphan() for _ in range(_ORPHANS)}
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline and (left := {pid for pid in left if exists(pid)}):
        time.sleep(0.01)
    return {"left": len(left), "unwaited": unwaited.wait()}


def exists(pid: int) -> bool:
    """Whether a process is there, be it alive or dead and not reaped."""
    return Path(f"/proc/{pid}").exists()


def main(mode: str) -> None:
    reaper = Reaper()
    outcome = {"statuses": statuses, "orphans": orphans}[mode]()
    reaper.close()
    print(json.dumps(outcome))


if __name__ == "__main__":
    main(sys.argv[1])
