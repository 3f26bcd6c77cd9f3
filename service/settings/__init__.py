"""What the daemon can be told: flags, `VIRTRPC_*` variables, a TOML file, in that order."""

from service.settings.merge import with_settings
from service.settings.settings import Settings

ENVIRONMENT_PREFIX = "VIRTRPC"

__all__ = ["ENVIRONMENT_PREFIX", "Settings", "with_settings"]
