"""The soak itself, for a few seconds."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_short_soak_of_the_fake_keeps_all_promises() -> None:
    command = [sys.executable, "-m", "tests.soak", "--backend=fake", "--seconds=4",
               "--kill-every=1.5", "--seed=1"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all promises were kept" in done.stdout
    assert done.stderr == ""
