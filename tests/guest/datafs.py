"""Make the filesystem that the test guest mounts at /mnt/data, on its RAM disk or its own disk."""

from pathlib import Path

from tests.guest.debs import run

UUID = "6f0d3c5e-8a41-4b7e-9d55-2f1e7c3b9a10"  # a fixed one makes builds repeatable


def make_data_filesystem(file: Path, *, size_mib: int) -> None:
    """Write an ext4 filesystem image with the label that init.sh looks for."""
    options = ("-U", UUID, "-E", f"hash_seed={UUID}", "-L", "virtrpc-data")
    environment = {"E2FSPROGS_FAKE_TIME": "1"}
    run("mke2fs", "-q", "-F", "-t", "ext4", *options, file, f"{size_mib}m", env=environment)
