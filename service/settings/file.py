"""The TOML file of settings."""

import tomllib
from pathlib import Path

import click

from service.settings.types import as_flag


def read_file(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Values of the TOML file become the defaults of the flags of the same names."""
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: neither UTF-8 nor TOML
        raise click.BadParameter(f"{path}: {error}") from error
    known = {parameter.name for parameter in context.command.params if parameter.expose_value}
    names = {}
    for name, value in values.items():
        try:
            names[name.replace("-", "_")] = as_flag(value)
        except ValueError as error:
            raise click.BadParameter(f"{path}: {name} {error}") from None
    unknown = sorted(set(names) - known)
    if unknown:
        raise click.BadParameter(f"{path}: unknown settings: {', '.join(unknown)}")
    context.default_map = {**(context.default_map or {}), **names}
