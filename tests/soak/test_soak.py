"""The soak itself, for a few seconds."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def soaked(*arguments: str) -> str:
    """What a soak says that finds nothing wrong."""
    command = [sys.executable, "-m", "tests.soak", "--seed=1", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all promises were kept" in done.stdout
    assert done.stderr == ""
    return done.stdout


def test_a_short_storm_on_the_fake_keeps_all_promises() -> None:
    assert "events, none missing" in soaked("storm-fake", "--scale=0.02")
