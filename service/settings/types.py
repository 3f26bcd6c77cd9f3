"""Types of settings that click does not have, and values of a TOML file as flags would say them."""

import ipaddress
import math
import os
from pathlib import Path
from typing import Any

import click
from virtrpc.cli.parameters import ParamType

from service.roles import IdentityPattern

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Folder(click.Path):
    """A folder that need not exist; an empty path would mean the one that we happen to be in."""

    def __init__(self, *, file_okay: bool = True) -> None:
        super().__init__(path_type=Path, file_okay=file_okay)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """See click.ParamType."""
        if not os.fspath(value):
            self.fail("a path is missing", param, ctx)
        return super().convert(value, param, ctx)


class Seconds(click.FloatRange):
    """A length of time; "nan" is within every range."""

    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """See click.ParamType."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is no length of time", param, ctx)
        return number


class OptionalFile(click.Path):
    """A file that need not exist yet; empty: none."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.ParamType."""
        if not isinstance(value, str | os.PathLike):
            self.fail("a path is missing", param, ctx)
        return super().convert(value, param, ctx) if os.fspath(value) else None


class Pattern(ParamType):
    """See IdentityPattern."""

    name = "identity"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> IdentityPattern:
        """See click.ParamType."""
        if isinstance(value, IdentityPattern):
            return value
        try:
            return IdentityPattern.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class CidrNetwork(ParamType):
    """A network in CIDR notation."""

    name = "network"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Network:
        """See click.ParamType."""
        try:
            return ipaddress.ip_network(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def as_flag(value: object) -> object:
    """A value of a TOML file as it would be said as a flag; raises ValueError for a table."""
    if isinstance(value, list):
        return [as_flag(element) for element in value]
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise ValueError("is not a setting's value")
