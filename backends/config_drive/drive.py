"""A config drive as files, and as the image that a guest gets."""

import io
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pycdlib
from virtrpc.v1 import spec_pb2

from backends.config_drive import nocloud, openstack
from backends.config_drive.facts import GuestFacts
from backends.plan import InstancePlan

_RANDOM_SEED_BYTES = 512


@dataclass(frozen=True)
class ConfigDrive:
    """Label and content of a drive."""

    label: str
    files: Mapping[str, bytes]

    def write(self, path: Path) -> None:
        """Writes the image as a new file that its owner alone may read."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, mode=0o600), "wb") as file:
            _Iso(self.label).write(self.files, file)


def config_drive(plan: InstancePlan) -> ConfigDrive | None:
    """The drive that an instance is to have; None: none."""
    if plan.config_drive == spec_pb2.CONFIG_DRIVE_TYPE_OPENSTACK:
        seed = secrets.token_bytes(_RANDOM_SEED_BYTES)
        files = openstack.openstack_files(GuestFacts(plan), random_seed=seed)
        return ConfigDrive(openstack.LABEL, files)
    if plan.config_drive == spec_pb2.CONFIG_DRIVE_TYPE_NOCLOUD:
        return ConfigDrive(nocloud.LABEL, nocloud.nocloud_files(GuestFacts(plan)))
    return None


class _Iso:
    """An ISO 9660 image whose real names are in its Rock Ridge and Joliet trees."""

    def __init__(self, label: str) -> None:
        self._iso = pycdlib.PyCdlib()
        self._iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=label)
        self._folders = {PurePosixPath("/"): ""}
        self._made = 0

    def write(self, files: Mapping[str, bytes], to: BinaryIO) -> None:
        """Writes an image with these files."""
        for name, content in files.items():
            self._add(PurePosixPath("/") / name, content)
        self._iso.write_fp(to)
        self._iso.close()

    def _add(self, path: PurePosixPath, content: bytes) -> None:
        short = f"{self._folder(path.parent)}/{self._short_name()}.;1"
        self._iso.add_fp(
            io.BytesIO(content), len(content), short, rr_name=path.name, joliet_path=str(path)
        )

    def _folder(self, path: PurePosixPath) -> str:
        """Path of a folder by its ISO 9660 names, made if need be."""
        if path not in self._folders:
            short = f"{self._folder(path.parent)}/{self._short_name()}"
            self._iso.add_directory(short, rr_name=path.name, joliet_path=str(path))
            self._folders[path] = short
        return self._folders[path]

    def _short_name(self) -> str:
        """A name of eight characters that ISO 9660 allows anywhere."""
        self._made += 1
        return f"N{self._made:07}"
