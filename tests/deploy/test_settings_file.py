"""The settings file that is delivered, read by the daemon itself."""

import tomllib
from pathlib import Path

import click

from service.main import main

FILE = Path(__file__).resolve().parents[2] / "deploy" / "virtrpcd.toml"
# Depend on who starts the daemon, and from where; the file has them for root and /opt.
OF_ROOT = {
    "web_dir": Path("/opt/virtrpc/share/virtrpc/web"),
    "state_dir": Path("/var/lib/virtrpc"),
    "image_dir": Path("/var/lib/virtrpc/images"),
    "instance_dir": Path("/var/lib/virtrpc/instances"),
    "listen": ("unix:/run/virtrpc/virtrpc.sock", "127.0.0.1:50051"),
}


def settings(*arguments: str) -> dict[str, object]:
    parsed: click.Context = main.make_context("virtrpcd", list(arguments))
    return parsed.params


def test_the_file_holds_the_defaults() -> None:
    assert settings("--config", str(FILE)) == settings() | OF_ROOT


def test_the_file_names_every_setting() -> None:
    names = {name.replace("-", "_") for name in tomllib.loads(FILE.read_text(encoding="utf-8"))}
    assert names == set(settings())
