"""Values of flags, variables and file, made into settings.

Each function takes the values of its noun out of all; what is left has the name
that it has among the settings.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from backends.host_power import HostPowerPolicy
from backends.images import ImagePolicy
from backends.volumes import VolumePolicy
from service.inventory import InventoryPolicy
from service.settings.access import access_settings
from service.settings.flags import FLAGS
from service.settings.settings import Settings

_Values = dict[str, Any]
_UNITS = {
    "sample_interval": "sample_interval_s",
    "reclaim_after": "reclaim_after_s",
    "recording_max_age": "recording_max_age_s",
    "recording_max_size": "recording_max_bytes",
    "rollback_patience": "rollback_patience_s",
    "rescue_timeout": "rescue_timeout_s",
    "image_cache_interval": "image_cache_interval_s",
    "grace": "grace_s",
    "peer_network": "peer_networks",
}
"""Flags have no units in their names, settings do; a flag is in the singular."""


def with_settings(command: Callable[[Settings], None]) -> Callable[..., None]:
    """Gives a click command all flags and calls it with the merged settings."""

    def run(**values: Any) -> None:
        command(merged(values))

    run.__doc__ = command.__doc__
    for flag in reversed(FLAGS):
        run = flag(run)
    return run


def merged(values: _Values) -> Settings:
    """The settings that the flags' values, by parameter name, amount to."""
    state_dir = values["state_dir"]
    return Settings(
        image_dir=values.pop("image_dir") or state_dir / "images",
        instance_dir=values.pop("instance_dir") or state_dir / "instances",
        share_dirs=_absolute(values.pop("share_dir")),
        images=_images(values),
        volumes=VolumePolicy(dirs=_absolute(values.pop("volume_dir"))),
        inventory=_inventory(values),
        host_power=_host_power(values),
        **{_UNITS.get(name, name): value for name, value in access_settings(values).items()},
    )


def _absolute(folders: tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(folder.absolute() for folder in folders)


def _images(values: _Values) -> ImagePolicy:
    return ImagePolicy(
        source_dirs=_absolute(values.pop("image_source_dir")),
        url_prefixes=values.pop("image_url_prefix"),
        max_size_bytes=values.pop("image_max_size"),
        max_virtual_size_bytes=values.pop("image_max_virtual_size"),
        max_unused_age_s=values.pop("image_max_unused_age"),
    )


def _inventory(values: _Values) -> InventoryPolicy:
    return InventoryPolicy(
        cpu_ratio=values.pop("cpu_allocation_ratio"),
        memory_ratio=values.pop("memory_allocation_ratio"),
        disk_ratio=values.pop("disk_allocation_ratio"),
        reserved_cpus=values.pop("reserved_cpus"),
        reserved_memory_mib=values.pop("reserved_memory"),
        reserved_disk_gib=values.pop("reserved_disk"),
    )


def _host_power(values: _Values) -> HostPowerPolicy:
    return HostPowerPolicy(
        allowed=values.pop("allow_host_power"),
        shutdown_command=values.pop("host_shutdown_command"),
        reboot_command=values.pop("host_reboot_command"),
    )
