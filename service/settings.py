"""What the daemon can be told: flags, `VIRTRPC_*` variables, a TOML file, in that order."""

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from virtrpc.address import default_socket

ENVIRONMENT_PREFIX = "VIRTRPC"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything configurable, after flags, environment and file were merged."""

    backend: str
    state_dir: Path
    image_dir: Path
    listen: tuple[str, ...]
    insecure: bool
    metrics: str
    libvirt_uri: str
    virt_type: str
    fake_faults: str
    sample_interval_s: float
    reclaim_after_s: float
    grace_s: float
    log_format: str
    log_level: str


def _default_state_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/virtrpc")
    base = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(base) / "virtrpc"


def _read_file(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Values of the TOML file become the defaults of the flags of the same names."""
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise click.BadParameter(f"{path}: {error}") from error
    known = {parameter.name for parameter in context.command.params}
    names = {name.replace("-", "_"): value for name, value in values.items()}
    unknown = sorted(set(names) - known)
    if unknown:
        raise click.BadParameter(f"{path}: unknown settings: {', '.join(unknown)}")
    context.default_map = {**(context.default_map or {}), **names}


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--config", type=click.Path(path_type=Path, dir_okay=False), is_eager=True,
        expose_value=False, callback=_read_file, help="TOML file with any of the settings here.",
    ),
    click.option("--backend", default="libvirt", show_default=True, help="Hypervisor backend."),
    click.option(
        "--state-dir", type=click.Path(path_type=Path), default=_default_state_dir,
        help="Journal, events and instances  [default: /var/lib/virtrpc as root]",
    ),
    click.option(
        "--image-dir", type=click.Path(path_type=Path), default=None,
        help="Image store  [default: images below the state directory]",
    ),
    click.option(
        "--listen", multiple=True, default=(default_socket(), "127.0.0.1:50051"),
        show_default=True, help="Address to serve on: unix:/path or host:port. Repeatable.",
    ),
    click.option(
        "--insecure", is_flag=True,
        help="Serve without TLS and without knowing who calls on addresses beyond loopback.",
    ),
    click.option(
        "--metrics", default="127.0.0.1:9177", show_default=True,
        help="Address of the Prometheus endpoint; empty: none.",
    ),
    click.option(
        "--libvirt-uri", default="qemu:///embed", show_default=True,
        help="Connection of the libvirt backend.",
    ),
    click.option(
        "--virt-type", type=click.Choice(("auto", "kvm", "qemu")), default="auto",
        show_default=True, help="Acceleration; auto: KVM where the CPU and /dev/kvm allow.",
    ),
    click.option(
        "--fake-faults", default="", metavar="RULES",
        help="Faults and delays of the fake backend, e.g. 'spawn_instance.start=fail'.",
    ),
    click.option(
        "--sample-interval", type=click.FloatRange(0.1, 3600), default=10.0,
        show_default=True, help="Seconds between samples of the guests' counters.",
    ),
    click.option(
        "--reclaim-after", type=click.FloatRange(0, 365 * 24 * 3600), default=7 * 24 * 3600,
        show_default=True, help="Seconds that soft-deleted instances are kept.",
    ),
    click.option(
        "--grace", type=click.FloatRange(0, 3600), default=10.0, show_default=True,
        help="Seconds that running operations have at a stop.",
    ),
    click.option(
        "--log-format", type=click.Choice(("console", "json")), default="console",
        show_default=True, help="Format of the log on standard error.",
    ),
    click.option(
        "--log-level", type=click.Choice(("debug", "info", "warning", "error")), default="info",
        show_default=True, help="Least level that is logged.",
    ),
)  # fmt: skip


def with_settings(command: Callable[[Settings], None]) -> Callable[..., None]:
    """Gives a click command all options and calls it with the merged settings."""

    def run(
        *,
        image_dir: Path | None,
        state_dir: Path,
        sample_interval: float,
        reclaim_after: float,
        grace: float,
        **values: Any,
    ) -> None:
        command(
            Settings(
                state_dir=state_dir,
                image_dir=image_dir or state_dir / "images",
                sample_interval_s=sample_interval,
                reclaim_after_s=reclaim_after,
                grace_s=grace,
                **values,
            )
        )

    run.__doc__ = command.__doc__
    for option in reversed(_OPTIONS):
        run = option(run)
    return run
