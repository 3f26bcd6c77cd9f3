"""The options by which a volume is described, for every verb that is given one."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import click

from virtrpc.cli.command import Decorated
from virtrpc.cli.parameters import BYTES, EnumChoice
from virtrpc.cli.standard_input import password
from virtrpc.cli.volume_source import SOURCE
from virtrpc.v1.spec_pb2 import DiskFormat, VolumeConnection

_QOS: tuple[tuple[str, str], ...] = (
    ("total_iops", "Requests per second."),
    ("read_iops", "Read requests per second."),
    ("write_iops", "Write requests per second."),
    ("total_bytes_per_s", "Bytes per second, or e.g. 10M."),
    ("read_bytes_per_s", "Bytes read per second."),
    ("write_bytes_per_s", "Bytes written per second."),
)
_FLAGS = ("read_only", "multi_attach", "discard")
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("volume", metavar="SOURCE", type=SOURCE),
    click.option("--format", "format_", type=EnumChoice(DiskFormat), help="[default: raw]"),
    click.option("--read-only", is_flag=True, help="The guest may not write."),
    click.option("--multi-attach", is_flag=True, help="Other instances may have it as well."),
    click.option("--discard", is_flag=True, help="Pass on what the guest discards."),
    click.option("--encrypted", is_flag=True, help="By LUKS; asks for its passphrase."),
    click.option(
        "--user", default="", metavar="TEXT", help="Of CHAP or Ceph; asks for its password or key."
    ),
    click.option("--monitor", "monitors", multiple=True, help="Of Ceph: HOST[:PORT]. Repeatable."),
    *(
        click.option(f"--{name.replace('_', '-')}", name, type=BYTES, default=0, help=text)
        for name, text in _QOS
    ),
)


def volume_options(command: Decorated) -> Decorated:
    """SOURCE and what goes with it; `connection` takes them out of the keywords."""
    return reduce(lambda made, option: option(made), reversed(_OPTIONS), command)


def connection(options: dict[str, Any], volume_id: str) -> VolumeConnection:
    """The volume that the options describe, which are taken out of them.

    Passphrase, password or key are asked for, or come by standard input.
    """
    volume: VolumeConnection = options.pop("volume")
    volume.volume_id = volume_id
    for name in _FLAGS:
        setattr(volume, name, options.pop(name))
    for name, _ in _QOS:
        value = options.pop(name)
        if value:
            setattr(volume.qos, name, value)
    _set_format(volume, options.pop("format_"))
    monitors = options.pop("monitors")
    if monitors and not volume.HasField("rbd"):
        raise click.UsageError("--monitor is of rbd")
    if monitors:
        volume.rbd.monitors.extend(monitors)
    _set_secret(volume, user=options.pop("user"), encrypted=options.pop("encrypted"))
    return volume


def _set_format(volume: VolumeConnection, given: DiskFormat.ValueType | None) -> None:
    if given is None:
        return
    kind = volume.WhichOneof("source") or ""
    if kind not in ("local_file", "nfs"):
        raise click.UsageError("only files have a format")
    getattr(volume, kind).format = given


def _set_secret(volume: VolumeConnection, *, user: str, encrypted: bool) -> None:
    if user and encrypted:
        raise click.UsageError("of --user and --encrypted only one secret can be given")
    if encrypted:
        volume.encryption.passphrase = password("Passphrase of the volume").encode()
    if user and volume.HasField("iscsi"):
        volume.iscsi.chap_username = user
        volume.iscsi.chap_password = password("Password of CHAP")
    elif user and volume.HasField("rbd"):
        volume.rbd.username, volume.rbd.key = user, password("Key of Ceph")
    elif user:
        raise click.UsageError("--user is of iscsi and rbd")
