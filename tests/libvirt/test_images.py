"""Images that are used, and those that would lead astray whatever opens them."""

import io
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import protovalidate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtrpc.v1.spec_pb2 import DiskFormat, ImageSource

from backends.errors import ContractError, InvalidArgumentError, NotFoundError
from backends.images import ImageStore
from backends.qcow2 import read_header
from tests.images import qcow2_header

GIB = 1 << 30
FIELD = "spec.image.image_id"


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    (tmp_path / "images").mkdir()
    return ImageStore(tmp_path / "images")


@pytest.fixture
def images(store: ImageStore, tmp_path: Path) -> Path:
    """The folder of the store."""
    return tmp_path / "images"


def qemu_img_create(*arguments: object) -> None:
    subprocess.run(
        ["qemu-img", "create", "-q", *map(str, arguments)], check=True, timeout=60, cwd="/"
    )


def qcow2(path: Path, *options: object, size: str = "64M") -> None:
    qemu_img_create("-f", "qcow2", *options, path, size)


def refusal(store: ImageStore, image_id: str = "image") -> str:
    """Why an image is refused: what its inspection found, or the reason."""
    with pytest.raises(ContractError) as caught:
        store.find(image_id, field=FIELD)
    assert caught.value.field == FIELD
    return caught.value.metadata.get("finding", caught.value.reason)


@pytest.mark.parametrize("options", [(), ("-o", "compat=0.10"), ("-o", "cluster_size=2M")])
def test_qcow2_of_every_version_tells_its_virtual_size(
    options: tuple[str, ...], store: ImageStore, images: Path
) -> None:
    qcow2(images / "image.qcow2", *options, size="3G")
    found = store.find_disk("image", field=FIELD)
    assert (found.format, found.virtual_size_bytes) == (DiskFormat.DISK_FORMAT_QCOW2, 3 * GIB)


def test_raw_image_is_as_large_as_its_file(store: ImageStore, images: Path) -> None:
    with (images / "image.raw").open("wb") as file:
        file.truncate(5 * GIB)
    found = store.find_disk("image", field=FIELD)
    assert (found.format, found.virtual_size_bytes) == (DiskFormat.DISK_FORMAT_RAW, 5 * GIB)


def test_format_is_said_by_the_name_and_never_guessed(store: ImageStore, images: Path) -> None:
    (images / "image.raw").write_bytes(qcow2_header(backing_file=b"/etc/shadow"))
    assert refusal(store) == "FORMAT_MISMATCH"


def test_kernel_is_no_disk(store: ImageStore, images: Path) -> None:
    (images / "vmlinuz-6.1").write_bytes(b"kernel")
    assert store.find("vmlinuz-6.1", field=FIELD).path == images / "vmlinuz-6.1"
    with pytest.raises(InvalidArgumentError) as caught:
        store.find_disk("vmlinuz-6.1", field=FIELD)
    assert caught.value.reason == "IMAGE_NOT_A_DISK"


def test_image_that_is_not_there_is_not_found(store: ImageStore) -> None:
    with pytest.raises(NotFoundError) as caught:
        store.find("image", field=FIELD)
    assert (caught.value.reason, caught.value.field) == ("IMAGE_NOT_FOUND", FIELD)


@pytest.mark.parametrize("named", ["absolute", "relative", "missing"])
def test_overlay_is_refused(named: str, store: ImageStore, images: Path, tmp_path: Path) -> None:
    base = tmp_path / "base.qcow2"
    qcow2(base)
    backing = {"absolute": base, "relative": "../base.qcow2", "missing": "/nonexistent"}[named]
    qcow2(images / "image.qcow2", "-u", "-F", "qcow2", "-b", backing)
    assert refusal(store) == "BACKING_FILE"


@pytest.mark.parametrize("backing", ["nbd://192.0.2.1/x", 'json:{"driver":"raw"}'])
def test_overlay_of_no_file_is_refused(backing: str, store: ImageStore, images: Path) -> None:
    qcow2(images / "image.qcow2", "-u", "-F", "raw", "-b", backing)
    assert refusal(store) == "BACKING_FILE"


def test_image_with_a_data_file_is_refused(store: ImageStore, images: Path, tmp_path: Path) -> None:
    qcow2(images / "image.qcow2", "-o", f"data_file={tmp_path}/data,data_file_raw=on")
    assert refusal(store) == "DATA_FILE"


@pytest.mark.parametrize(
    "content",
    [b"", b"QFI", b"QFI\xfb", b"KDMV" + bytes(512), bytes(512),
     qcow2_header(version=2)[:71], qcow2_header(version=3)[:79], qcow2_header(version=3)[:103],
     qcow2_header(version=0), qcow2_header(version=1), qcow2_header(version=4),
     qcow2_header(version=2**32 - 1)],
)  # fmt: skip
def test_file_that_is_no_whole_qcow2_is_refused(
    content: bytes, store: ImageStore, images: Path
) -> None:
    (images / "image.qcow2").write_bytes(content)
    assert refusal(store) in {"FORMAT_MISMATCH", "UNKNOWN_FEATURE", "TRUNCATED", "MALFORMED"}


@pytest.mark.parametrize("virtual_size", [(16 << 40) + 1, 64 << 40, 2**63, 2**64 - 1])
def test_image_that_claims_to_be_huge_is_refused(
    virtual_size: int, store: ImageStore, images: Path
) -> None:
    (images / "image.qcow2").write_bytes(qcow2_header(virtual_size=virtual_size))
    assert refusal(store) == "IMAGE_TOO_LARGE"


def test_backing_file_that_is_nowhere_in_the_file_is_refused(
    store: ImageStore, images: Path
) -> None:
    header = bytearray(qcow2_header())
    header[8:16] = b"\xff" * 8
    (images / "image.qcow2").write_bytes(header)
    assert refusal(store) == "BACKING_FILE"


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(path))


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, make_socket])
@pytest.mark.parametrize("suffix", ["", ".raw", ".qcow2"])
def test_what_is_no_regular_file_is_refused_without_waiting(
    make: Callable[[Path], object], suffix: str, store: ImageStore, images: Path
) -> None:
    make(images / f"image{suffix}")
    assert refusal(store) in {"IMAGE_UNUSABLE", "IMAGE_NOT_FOUND"}


@pytest.mark.parametrize("target", ["secret", "nonexistent", "image.qcow2"])
def test_symbolic_link_is_refused(
    target: str, store: ImageStore, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(qcow2_header())
    (images / "image.qcow2").symlink_to(tmp_path / target)
    assert refusal(store) == "IMAGE_UNUSABLE"


@pytest.mark.parametrize(
    "image_id", ["../secret", "/etc/shadow", ".hidden", "-rf", "a/b", "a\0b", "a b", "é", "a" * 256]
)
def test_name_that_leads_elsewhere_is_invalid(image_id: str) -> None:
    with pytest.raises(protovalidate.ValidationError):
        protovalidate.validate(ImageSource(image_id=image_id))


@settings(max_examples=300, deadline=None)
@given(
    content=st.binary(max_size=200),
    patches=st.lists(st.tuples(st.integers(0, 103), st.binary(min_size=1, max_size=8)), max_size=4),
)
def test_header_of_any_bytes_is_read_or_refused(
    content: bytes, patches: list[tuple[int, bytes]]
) -> None:
    patched = bytearray(qcow2_header(backing_file=b"base"))
    for offset, replacement in patches:
        patched[offset : offset + len(replacement)] = replacement
    for raw in (content, bytes(patched), bytes(patched) + content):
        header = read_header(io.BytesIO(raw))
        assert header is None or header.virtual_size_bytes >= 0
