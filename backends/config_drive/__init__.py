"""Config drives: what a guest is told at its first boot, on a small read-only disk.

A drive is made of a few files (layouts: OpenStack, NoCloud) and written as an
ISO 9660 image. It holds the secrets of `GuestConfig` by design: its file is
readable for the daemon and the guest's process alone.
"""

from backends.config_drive.drive import ConfigDrive, config_drive

__all__ = ["ConfigDrive", "config_drive"]
