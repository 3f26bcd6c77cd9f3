"""How a status file is made to say what QEMU has: by its answers, as far as it is believed."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from backends.libvirt.lost_chains import make_readable, note_chains
from backends.libvirt.status_files import read_status
from backends.libvirt.xml.disk import Disk

STATUS = """
<domstatus state="running" pid="1">
  <monitor path="/none" type="unix"/>
  <nodename index="7"/>
  <blockjobs active="yes">
    <blockjob name="job-vda" type="{type}" state="{state}" newstate="{newstate}">
      <disk dst="vda" mirror="yes"/>
    </blockjob>
    <blockjob name="job-vdb" type="pull" state="running"><disk dst="vdb"/></blockjob>
  </blockjobs>
  <domain type="qemu"><uuid>1</uuid><devices>
    <disk type="file" device="disk">
      <driver name="qemu" type="qcow2" cache="none"/>
      <source file="{folder}/top" index="3"><privateData><nodenames>
        <nodename type="storage" name="libvirt-3-storage"/>
        <nodename type="format" name="libvirt-3-format"/>
      </nodenames></privateData></source>
      <backingStore type="file" index="2">
        <format type="qcow2"/>
        <source file="{folder}/middle"><privateData><nodenames>
          <nodename type="format" name="libvirt-2-format"/>
        </nodenames></privateData></source>
        <backingStore type="file" index="1">
          <format type="raw"/>
          <source file="{folder}/base"><privateData><nodenames>
            <nodename type="format" name="libvirt-1-format"/>
          </nodenames></privateData></source>
          <backingStore/>
        </backingStore>
      </backingStore>
      {mirror}
      <target dev="vda" bus="virtio"/>
      <privateData><qom name="/vda"/></privateData>
    </disk>
  </devices></domain>
</domstatus>
"""
MIRROR = """
<mirror type="block" job=""><format type="raw"/>
  <source dev="/dev/vg/new" index="7"><privateData><nodenames>
    <nodename type="format" name="libvirt-7-format"/>
  </nodenames></privateData></source>
  <backingStore/>
</mirror>
"""


class Qemu:
    """Answers as a machine with one disk."""

    def __init__(self, node: str, files: list[str], jobs: dict[str, str] | None = None) -> None:
        image: dict[str, Any] | None = None
        for file in reversed(files):
            image = {"filename": file} | ({"backing-image": image} if image else {})
        self.medium: dict[str, Any] = {"node-name": node, "image": image}
        self._answers: dict[str, Any] = {
            "query-jobs": [{"id": name, "status": how} for name, how in (jobs or {}).items()],
            "query-block": [{"qdev": "/vda", "inserted": self.medium}],
        }
        self.dismissed: list[object] = []

    def execute(self, command: str) -> Any:
        return self._answers[command]

    def obeys(self, command: str, **arguments: object) -> bool:
        assert command == "job-dismiss"
        self.dismissed.append(arguments["id"])
        return True


@pytest.fixture
def status(tmp_path: Path) -> Path:
    return written(tmp_path)


def written(
    folder: Path,
    *,
    kind: str = "copy",
    mirror: str = "",
    state: str = "ready",
    newstate: str = "ready",
) -> Path:
    path = folder / "web.xml"
    text = STATUS.format(folder=folder, type=kind, mirror=mirror, state=state, newstate=newstate)
    path.write_text(text, encoding="utf-8")
    return path


def noted(path: Path, qemu: Qemu) -> Disk | None:
    """The disk as the status file has it after; None: the file was left alone."""
    before, read = path.read_bytes(), read_status(path)
    assert read is not None
    if note_chains(qemu, read) is None:  # type: ignore[arg-type]
        assert path.read_bytes() == before
        return None
    return disk_in(path)


def disk_in(path: Path) -> Disk:
    again = read_status(path)
    assert again is not None
    assert path.stat().st_mode & 0o777 == 0o600
    node = again.domain.find("devices/disk")
    assert node is not None
    assert node.find("mirror") is None
    return Disk.from_xml(node)


def below(disk: Disk) -> list[tuple[str | None, str | None]]:
    return [(file.file, file.format) for file in disk.chain or ()]


def test_what_is_noted_is_left_alone(status: Path) -> None:
    folder = status.parent
    # Names are compared where the number differs: QEMU may call a file otherwise.
    assert noted(status, Qemu("libvirt-3-format", ["json:{}", "x", f"{folder}/base"])) is None


def test_a_mirror_that_has_turned_becomes_the_disk(tmp_path: Path) -> None:
    path = written(tmp_path, mirror=MIRROR)
    disk = noted(path, Qemu("libvirt-7-format", ["/dev/vg/new"]))
    assert disk is not None
    assert (disk.type, disk.source_device, disk.source_file) == ("block", "/dev/vg/new", None)
    assert (disk.format, disk.cache, disk.chain) == ("raw", "none", [])
    text = path.read_text(encoding="utf-8")
    assert "job-vda" not in text
    assert "job-vdb" in text
    assert '<nodename index="7"/>' in text
    assert '<source dev="/dev/vg/new" index="7">' in text


def test_a_mirror_that_was_given_up_goes(tmp_path: Path) -> None:
    path = written(tmp_path, mirror=MIRROR)
    files = [f"{tmp_path}/{name}" for name in ("top", "middle", "base")]
    disk = noted(path, Qemu("libvirt-3-format", files))
    assert disk is not None
    assert disk.source_file == files[0]
    assert below(disk) == [(files[1], "qcow2"), (files[2], "raw")]


@pytest.mark.parametrize(
    ("kind", "node", "left"),
    [
        ("active-commit", "libvirt-1-format", ["base"]),
        ("active-commit", "libvirt-2-format", ["middle", "base"]),
        ("commit", "libvirt-3-format", ["top", "base"]),
        ("pull", "libvirt-3-format", ["top", "base"]),
        ("pull", "libvirt-3-format", ["top"]),
    ],
)
def test_files_go_that_a_job_has_merged(
    tmp_path: Path, kind: str, node: str, left: list[str]
) -> None:
    files = [f"{tmp_path}/{name}" for name in left]
    assert noted(written(tmp_path), Qemu(node, files)) is None  # a copy merges nothing
    # QEMU names a file so where the header above it has another name for the one below.
    named = [f'json:{{"driver": "raw", "file": {{"filename": "{file}"}}}}' for file in files]
    disk = noted(written(tmp_path, kind=kind), Qemu(node, named))
    assert disk is not None
    assert [disk.source_file, *(file for file, _ in below(disk))] == files
    assert disk.format == ("raw" if left == ["base"] else "qcow2")


def test_a_job_that_is_over_is_dismissed_and_one_that_goes_on_left_alone(tmp_path: Path) -> None:
    path = written(tmp_path, mirror=MIRROR)
    turned = Qemu("libvirt-7-format", ["/dev/vg/new"], {"job-vda": "running"})
    assert noted(path, turned) is None
    over = Qemu("libvirt-7-format", ["/dev/vg/new"], {"job-vda": "concluded"})
    assert noted(path, over) is not None
    assert over.dismissed == ["job-vda"]


def test_of_a_backup_that_is_over_libvirt_hears(tmp_path: Path) -> None:
    path = written(tmp_path, kind="backup")
    qemu = Qemu("libvirt-1-format", [f"{tmp_path}/base"], {"job-vda": "concluded"})
    assert noted(path, qemu) is None
    assert qemu.dismissed == []


def overlay(path: Path, base: Path) -> str:
    subprocess.run(["qemu-img", "create", "-q", "-f", "raw", str(base), "1M"], check=True)
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(path)]
    subprocess.run(command, check=True)
    return str(path)


def test_an_overlay_is_noted(status: Path) -> None:
    folder = status.parent
    path = overlay(folder / "top.snapshot", folder / "top")
    files = [path, *(f"{folder}/{name}" for name in ("top", "middle", "base"))]
    disk = noted(status, Qemu("libvirt-12-format", files))
    assert disk is not None
    assert [disk.source_file, *(file for file, _ in below(disk))] == files
    assert '<nodename index="12"/>' in status.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("state", "newstate", "left"),
    [
        ("pivoting", "completed", ["/dev/vg/new"]),
        ("pivoting", "failed", ["top", "middle", "base"]),
        ("aborting", "completed", ["top", "middle", "base"]),
    ],
)
def test_what_libvirt_cannot_read_is_ended_as_its_job_was(
    tmp_path: Path, state: str, newstate: str, left: list[str]
) -> None:
    """Though QEMU does not answer."""
    path = written(tmp_path, mirror=MIRROR, state=state, newstate=newstate)
    read = read_status(path)
    assert read is not None
    assert make_readable(read)
    disk = disk_in(path)
    files = [disk.source_device or disk.source_file, *(file for file, _ in below(disk))]
    assert files == [str(tmp_path / name) for name in left]
    again = read_status(path)
    assert again is not None
    assert not make_readable(again)


@pytest.mark.parametrize("image", [5, {}, {"filename": 5}, {"filename": "json:[]"}, None])
def test_an_answer_without_sense_changes_nothing(tmp_path: Path, image: object) -> None:
    qemu = Qemu("libvirt-3-format", [])
    qemu.medium["image"] = image
    assert noted(written(tmp_path, kind="pull", mirror=MIRROR), qemu) is None


LIES = ["elsewhere", "symlink", "other base", "missing", "name", "depth", "other disk", "fifo"]


@pytest.mark.parametrize("case", LIES)
def test_a_machine_that_lies_is_not_believed(status: Path, case: str) -> None:
    """It may have been taken over by its guest: libvirt would give it what it names."""
    folder, node, path = status.parent, "libvirt-12-format", status.parent / "top.snapshot"
    overlay(path, folder / ("other" if case == "other base" else "top"))
    if case == "elsewhere":
        (folder / "sub").mkdir()
        path = path.rename(folder / "sub/top.snapshot")
    elif case == "symlink":
        path = path.rename(folder / "real")
        path = folder / "link"
        path.symlink_to("real")
    elif case == "missing":
        path.unlink()
    elif case == "name":
        node = "drive-12"
    elif case == "other disk":
        text = status.read_text(encoding="utf-8")
        disk = f'<disk type="file"><source file="{path}"/></disk>'
        status.write_text(text.replace("</devices>", f"{disk}</devices>"), encoding="utf-8")
    elif case == "fifo":
        path.unlink()
        os.mkfifo(path)
    files = [str(path), *(f"{folder}/{name}" for name in ("top", "middle", "base"))]
    assert noted(status, Qemu(node, [*files, "/etc/shadow"] if case == "depth" else files)) is None
