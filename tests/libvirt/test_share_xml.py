"""Shares in a domain's XML: put in, read back, taken out, and libvirt's schema keeps."""

from pathlib import Path

import pytest
from lxml import etree
from virtrpc.v1.instance_pb2 import Share

from backends.libvirt.xml.element import Node, parse
from backends.libvirt.xml.shares import share_device, shares_of, with_share, without_share

GOLDEN = Path(__file__).parent / "golden"
SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
DOCS = Share(share_id="5a3e0000-0000-4000-8000-000000000004", tag="docs", path="/srv/<&'")
DATA = Share(share_id="5a3e0000-0000-4000-8000-000000000005", tag="data", path="/d", read_only=True)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.xml")), ids=lambda path: str(path.stem))
def test_domain_has_its_shares_and_is_as_it_was_without_them(path: Path) -> None:
    before = path.read_text(encoding="utf-8")
    document = with_share(with_share(before, device(DATA)), device(DOCS))
    domain = parse(document)
    assert shares_of(domain) == [DOCS, DATA]
    assert domain.find("memoryBacking/access[@mode='shared']") is not None
    etree.RelaxNG(etree.parse(SCHEMA)).assertValid(domain)
    one = without_share(document, DATA.share_id)
    assert shares_of(parse(one)) == [DOCS]
    assert parse(one).find("memoryBacking/access[@mode='shared']") is not None
    assert flat(without_share(one, DOCS.share_id)) == flat(before)


def device(share: Share) -> Node:
    return share_device(share, read_only_program=Path("/var/lib/virtrpc/virtiofsd-read-only"))


def flat(document: str) -> bytes:
    """The domain without what only its layout is."""
    node = parse(document)
    for element in node.iter():
        element.tail = None
        element.text = (element.text or "").strip() or None
    return etree.tostring(node, method="c14n")
