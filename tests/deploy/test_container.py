"""The container file: parsed, and held against the tree that it copies from."""

import json
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy" / "container" / "Containerfile"
INSTRUCTIONS = {
    "FROM", "RUN", "COPY", "WORKDIR", "ENV", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK",
    "ENTRYPOINT", "CMD", "USER", "LABEL", "ARG",
}  # fmt: skip
IN_JSON = {"VOLUME", "ENTRYPOINT", "CMD"}


def instructions() -> list[tuple[str, str]]:
    """Instruction and argument, continuation lines joined and comments left out."""
    kept = (line for line in FILE.read_text(encoding="utf-8").splitlines() if line[:1] != "#")
    lines = "\n".join(kept).replace("\\\n", " ").splitlines()
    return [
        (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line)
    ]


def copies() -> Iterator[tuple[str, list[str]]]:
    """Stage ("" for the source tree) and sources of every COPY."""
    for word, rest in instructions():
        if word == "COPY":
            *arguments, _target = shlex.split(rest)
            stage = next((a.removeprefix("--from=") for a in arguments if a[:2] == "--"), "")
            yield stage, [a for a in arguments if a[:2] != "--"]


def packages(run: str) -> set[str]:
    """What a RUN installs by apt."""
    words = shlex.split(run.partition("apt-get install")[2].partition("&&")[0])
    return {word for word in words if not word.startswith("--")}


def test_only_known_instructions_occur_and_from_comes_first() -> None:
    words = [word for word, _ in instructions()]
    assert set(words) <= INSTRUCTIONS
    assert words[0] == "FROM"
    assert words[-1] == "ENTRYPOINT"


def test_forms_in_json_are_lists_of_words() -> None:
    for word, rest in instructions():
        if word in IN_JSON:
            assert all(isinstance(item, str) for item in json.loads(rest)), rest


def test_every_copied_file_exists() -> None:
    stages = {
        rest.split()[-1] for word, rest in instructions() if word == "FROM" and " AS " in rest
    }
    for stage, sources in copies():
        if stage:
            assert stage in stages
        else:
            assert [source for source in sources if not (ROOT / source).exists()] == []


def test_everything_that_the_daemon_is_made_of_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = project["tool"]["setuptools"]["packages"]["find"]["include"]
    copied = {source for stage, sources in copies() if not stage for source in sources}
    assert {name.rstrip("*") for name in found} <= copied
    assert project["project"]["readme"] in copied


def test_commands_are_valid_shell() -> None:
    for word, rest in instructions():
        if word == "RUN":
            subprocess.run(["sh", "-n", "-c", rest], check=True)


def test_the_image_has_the_packages_that_a_host_gets() -> None:
    listed = (ROOT / "deploy/setup/packages-run.txt").read_text(encoding="utf-8").splitlines()
    host = {line.split()[0] for line in listed if line[:1] != "#"}
    runs = [rest for word, rest in instructions() if word == "RUN" and "apt-get install" in rest]
    of_the_guests_builder = {"e2fsprogs"}
    assert packages(runs[0]) | packages(runs[1]) >= host - of_the_guests_builder
