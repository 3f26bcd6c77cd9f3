"""What an instance was before its rebuild is put back whole, wherever that was broken off."""

import shutil
from pathlib import Path

import pytest

from backends.libvirt.memento import Memento
from backends.libvirt.own_disks import remove_files

BEFORE = {"root.qcow2": "old root", "ephemeral-vdb.raw": "kept", "nvram.fd": "old entries"}
DEFINITION = "<domain/>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in BEFORE.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "console.1.log").write_text("goes on")
    return tmp_path


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def make_anew(folder: Path) -> None:
    remove_files(folder, keep={"ephemeral-vdb.raw"})
    (folder / "root.qcow2").write_text("new root")
    (folder / "config.iso").write_text("new drive")
    (folder / "console.1.log").write_text("goes on and on")


def test_what_was_is_put_back(folder: Path) -> None:
    Memento(folder).take(DEFINITION)
    make_anew(folder)
    for _ in range(2):
        assert Memento(folder).put_back() == DEFINITION
        assert files(folder) == {**BEFORE, "console.1.log": "goes on and on"}
    Memento(folder).forget()
    assert [path for path in folder.iterdir() if path.is_dir()] == []
    assert Memento(folder).put_back() is None
    assert files(folder) == {**BEFORE, "console.1.log": "goes on and on"}


def test_what_is_made_anew_stays_when_all_else_is_forgotten(folder: Path) -> None:
    Memento(folder).take(DEFINITION)
    make_anew(folder)
    Memento(folder).forget()
    assert Memento(folder).put_back() is None
    assert files(folder)["root.qcow2"] == "new root"
    assert files(folder)["ephemeral-vdb.raw"] == "kept"


def test_a_memento_that_was_not_finished_is_none(folder: Path) -> None:
    (folder / "before.new").mkdir()
    (folder / "before.new" / "root.qcow2").write_text("half")
    assert Memento(folder).put_back() is None
    assert not (folder / "before.new").exists()
    assert files(folder) == {**BEFORE, "console.1.log": "goes on"}


def test_one_that_was_half_forgotten_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Memento(folder).take(DEFINITION)
    make_anew(folder)
    Memento(folder).put_back()

    def dies(path: Path) -> None:
        (path / "root.qcow2").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", dies)
        Memento(folder).forget()
    assert Memento(folder).put_back() is None
    assert files(folder) == {**BEFORE, "console.1.log": "goes on and on"}


def test_putting_back_that_was_broken_off_is_done_again(folder: Path) -> None:
    Memento(folder).take(DEFINITION)
    make_anew(folder)
    (folder / "root.qcow2.back").write_text("a name that was not given yet")
    (folder / "root.qcow2").unlink()
    assert Memento(folder).put_back() == DEFINITION
    assert files(folder) == {**BEFORE, "console.1.log": "goes on and on"}
