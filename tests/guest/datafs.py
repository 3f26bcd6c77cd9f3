"""Make the filesystem that the test guest mounts at /mnt/data, on its RAM disk or its own disk."""

from pathlib import Path

from debs import run


def make_data_filesystem(file: Path, *, size_mib: int) -> None:
    """Write an ext4 filesystem image with the label that init.sh looks for."""
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "virtrpc-data", file, f"{size_mib}m")
