"""Specifications and the domains made from them, compared with files and judged by libvirt.

Each `golden/NAME.txtpb` is a specification in Protobuf's text format, with the domain
type in a comment; `golden/NAME.xml` is its domain. After a wanted change of what is
written, `UPDATE_GOLDEN=1 pytest tests/libvirt/test_golden.py` writes the domains anew:
look at their difference before it is committed.
"""

import os
import re
from pathlib import Path

import libvirt
import protovalidate
import pytest
from google.protobuf import text_format
from google.protobuf.timestamp_pb2 import Timestamp
from lxml import etree
from virtrpc.v1.spec_pb2 import DiskFormat, InstanceSpec

from backends.images import StoredImage
from backends.libvirt.blueprint import Place, domain_xml, unsupported
from backends.libvirt.xml import metadata
from backends.libvirt.xml.element import parse
from backends.redaction import redacted

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.txtpb"))
SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
INSTANCE_ID = "0f9a5c1e-6d2b-4c8e-9d55-3b1f0a2c7e44"
REFUSED: set[str] = set()


def specification(name: str) -> InstanceSpec:
    text = (GOLDEN / f"{name}.txtpb").read_text(encoding="utf-8")
    return text_format.Parse(text, InstanceSpec())


def domain_type(name: str) -> str:
    text = (GOLDEN / f"{name}.txtpb").read_text(encoding="utf-8")
    found = re.search(r"^# domain type: (\w+)$", text, re.MULTILINE)
    assert found is not None, f"{name}: no domain type"
    return found[1]


def stored(image_id: str) -> StoredImage | None:
    if not image_id:
        return None
    path = Path("/var/lib/virtrpc/images <&>") / image_id
    return StoredImage(image_id, path, DiskFormat.DISK_FORMAT_UNSPECIFIED, 1)


def own_facts(spec: InstanceSpec) -> metadata.InstanceMetadata:
    created_at = Timestamp(seconds=1_767_323_045, nanos=678_901_000)
    return metadata.InstanceMetadata(spec, created_at=created_at, metadata=dict(spec.metadata))


def built(name: str) -> str:
    """The domain of a specification, at a place of its own making."""
    spec, virt_type = specification(name), domain_type(name)
    folder = Path("/var/lib/virtrpc/instances") / INSTANCE_ID
    place = Place(
        virt_type=virt_type,
        emulator=None if virt_type == "test" else "/usr/bin/qemu-system-x86_64",
        root_disk=folder / "root.qcow2" if spec.image.image_id else None,
        kernel=stored(spec.image.kernel_image_id),
        ramdisk=stored(spec.image.ramdisk_image_id),
        console_log=folder / "console.5d0e7a52-0d0f-4a53-8f0b-0c7b6ac5a1d2.log",
    )
    return domain_xml(INSTANCE_ID, own_facts(spec), place)


def golden(name: str) -> str:
    return (GOLDEN / f"{name}.xml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def schema() -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(SCHEMA))


@pytest.mark.parametrize("name", NAMES)
def test_specification_makes_its_golden_domain(name: str) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / f"{name}.xml").write_text(built(name), encoding="utf-8")
    assert built(name) == golden(name)


def test_every_golden_domain_has_a_specification() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.xml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_golden_specification_is_one_that_callers_may_send(name: str) -> None:
    protovalidate.validate(specification(name))


@pytest.mark.parametrize("name", NAMES)
def test_golden_specification_is_carried_out_or_refused(name: str) -> None:
    blockers = {blocker.metadata["capability"] for blocker in unsupported(specification(name))}
    assert blockers == ({name} if name in REFUSED else set())


@pytest.mark.parametrize("name", NAMES)
def test_golden_domain_fits_the_schema_of_libvirt(name: str, schema: etree.RelaxNG) -> None:
    schema.assertValid(etree.fromstring(golden(name)))


@pytest.mark.parametrize("name", NAMES)
def test_golden_domain_tells_its_specification(name: str) -> None:
    found = metadata.find_in(parse(golden(name)))
    assert found == own_facts(redacted(specification(name)))


@pytest.mark.parametrize("name", NAMES)
def test_test_driver_takes_golden_domain_and_keeps_its_strings(
    name: str, test_driver: libvirt.virConnect
) -> None:
    domain = test_driver.defineXMLFlags(golden(name), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    try:
        kept = parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    finally:
        domain.undefine()
    assert metadata.find_in(kept) == metadata.find_in(parse(golden(name)))
    assert kept.findtext("os/cmdline") == parse(golden(name)).findtext("os/cmdline")


@pytest.mark.libvirt
@pytest.mark.parametrize("name", [name for name in NAMES if domain_type(name) == "qemu"])
def test_qemu_driver_takes_golden_domain(name: str, qemu_driver: libvirt.virConnect) -> None:
    domain = qemu_driver.defineXMLFlags(golden(name), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    try:
        kept = parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    finally:
        domain.undefine()
    assert metadata.find_in(kept) == metadata.find_in(parse(golden(name)))
