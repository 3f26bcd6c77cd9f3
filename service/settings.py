"""What the daemon can be told: flags, `VIRTRPC_*` variables, a TOML file, in that order."""

import os
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from virtrpc.address import default_socket

from backends.images import ImagePolicy
from service.consoles.recording import DEFAULT_MAX_AGE_S, DEFAULT_MAX_BYTES

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
    http: str
    http_url: str
    web_dir: Path
    recording_max_age_s: float
    recording_max_bytes: int
    libvirt_uri: str
    virt_type: str
    fake_faults: str
    sample_interval_s: float
    reclaim_after_s: float
    images: ImagePolicy
    image_cache_interval_s: float
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
        "--http", default="", metavar="HOST:PORT",
        help="Address of the web console  [default: none]",
    ),
    click.option(
        "--http-url", default="", metavar="URL",
        help="By which browsers reach the web console, where that is not the address of --http.",
    ),
    click.option(
        "--web-dir", type=click.Path(path_type=Path, file_okay=False),
        default=Path(sys.prefix, "share/virtrpc/web"),
        show_default="share/virtrpc/web of the environment",
        help="The built pages of the web console.",
    ),
    click.option(
        "--recording-max-age", type=click.FloatRange(0, 100 * 365 * 24 * 3600),
        default=DEFAULT_MAX_AGE_S, show_default=True,
        help="Seconds that recordings of console attachments are kept.",
    ),
    click.option(
        "--recording-max-size", type=click.IntRange(1, 1 << 40), default=DEFAULT_MAX_BYTES,
        show_default="64 MiB", help="Most bytes of console output in a recording.",
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
        "--image-source-dir", multiple=True, type=click.Path(path_type=Path, file_okay=False),
        help="Directory that PullImage may read files from. Repeatable  [default: none]",
    ),
    click.option(
        "--image-url-prefix", multiple=True,
        help="Address below which images may be fetched. Repeatable  [default: any but this"
        " host's own]",
    ),
    click.option(
        "--image-max-size", type=click.IntRange(1, 1 << 46), default=ImagePolicy.max_size_bytes,
        show_default="64 GiB", help="Most bytes of an image's file.",
    ),
    click.option(
        "--image-max-virtual-size", type=click.IntRange(1, 1 << 46),
        default=ImagePolicy.max_virtual_size_bytes, show_default="1 TiB",
        help="Most bytes of the disk in an image.",
    ),
    click.option(
        "--image-max-unused-age", type=click.FloatRange(0, 365 * 24 * 3600),
        default=ImagePolicy.max_unused_age_s, show_default=True,
        help="Seconds after which evictable images that nobody uses are deleted.",
    ),
    click.option(
        "--image-cache-interval", type=click.FloatRange(0, 24 * 3600), default=600.0,
        show_default=True, help="Seconds between looks for unused images; 0: never by itself.",
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
        recording_max_age: float,
        recording_max_size: int,
        grace: float,
        image_source_dir: tuple[Path, ...],
        image_url_prefix: tuple[str, ...],
        image_max_size: int,
        image_max_virtual_size: int,
        image_max_unused_age: float,
        image_cache_interval: float,
        **values: Any,
    ) -> None:
        command(
            Settings(
                state_dir=state_dir,
                image_dir=image_dir or state_dir / "images",
                sample_interval_s=sample_interval,
                reclaim_after_s=reclaim_after,
                recording_max_age_s=recording_max_age,
                recording_max_bytes=recording_max_size,
                grace_s=grace,
                images=ImagePolicy(
                    source_dirs=tuple(folder.absolute() for folder in image_source_dir),
                    url_prefixes=image_url_prefix,
                    max_size_bytes=image_max_size,
                    max_virtual_size_bytes=image_max_virtual_size,
                    max_unused_age_s=image_max_unused_age,
                ),
                image_cache_interval_s=image_cache_interval,
                **values,
            )
        )

    run.__doc__ = command.__doc__
    for option in reversed(_OPTIONS):
        run = option(run)
    return run
