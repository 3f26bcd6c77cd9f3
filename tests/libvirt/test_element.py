"""Domain XML reads back as it was written, whatever the strings in it."""

from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from backends.libvirt.xml.domain import (
    Balloon,
    Channel,
    Disk,
    Domain,
    Rng,
    Serial,
    Video,
)
from backends.libvirt.xml.element import Element, Node, is_writable, parse, to_text
from backends.libvirt.xml.interface import Interface

ELEMENTS = (Domain, Disk, Interface, Serial, Channel, Rng, Balloon, Video)
HOSTILE = ('"', "'", "<", ">", "&", "]]>", "<!--", "&amp;", "&#0;", "é", "\u2028", "\u0085", "😀")
# All that XML can hold: surrogates are not characters, and of the controls it has three.
CHARACTERS = st.one_of(
    st.characters(min_codepoint=0x20, exclude_categories=["Cs"], exclude_characters="\ufffe\uffff"),
    st.sampled_from("\t\n\r"),
)
TEXTS = st.lists(st.one_of(CHARACTERS, st.sampled_from(HOSTILE)), min_size=1, max_size=4).map(
    "".join
)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a declared field, by its type."""
    if hint is bool:
        return st.booleans()
    if get_args(hint) and isinstance(hint, type(list[int])):
        return st.lists(elements_of(get_args(hint)[0]), max_size=2)
    (kind,) = (argument for argument in get_args(hint) if argument is not type(None))
    known = {str: TEXTS, int: st.integers(), bool: st.booleans()}
    return st.none() | (known[kind] if kind in known else elements_of(kind))


def elements_of(kind: type[Element]) -> st.SearchStrategy[Element]:
    """Elements with any of their declared fields set."""
    hints = get_type_hints(kind)
    return st.builds(kind, **{field.name: values_of(hints[field.name]) for field in fields(kind)})


def with_undeclared(node: Node) -> Node:
    """The same with a child, an attribute and a comment more in every element."""
    for element in list(node.iter()):
        etree.SubElement(element, "undeclared", type="x").text = "y"
        element.append(etree.Comment("undeclared"))
        element.set("undeclared", "z")
    return node


@pytest.mark.parametrize("kind", ELEMENTS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_declared_field_reads_back_as_written(
    kind: type[Element], data: st.DataObject
) -> None:
    element = data.draw(elements_of(kind))
    assert kind.from_xml(parse(to_text(element.to_xml()))) == element


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(domain=elements_of(Domain))
def test_what_is_not_declared_is_passed_over(domain: Element) -> None:
    assert Domain.from_xml(with_undeclared(domain.to_xml())) == domain


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=4) | st.characters())
def test_text_is_writable_exactly_when_lxml_takes_it(text: str) -> None:
    try:
        etree.Element("text").text = text
    except ValueError:
        assert not is_writable(text)
    else:
        assert is_writable(text)


@pytest.mark.parametrize("control", ["\0", "\x01", "\x1b", "\x1f", "\ufffe", "\uffff", "\ud800"])
def test_text_that_xml_cannot_hold_is_never_written(control: str) -> None:
    assert not is_writable(control)
    with pytest.raises(ValueError):
        Domain(name=f"a{control}").to_xml()


def test_absent_fields_write_nothing() -> None:
    assert to_text(Disk().to_xml()).strip() == "<disk/>"


def test_element_with_attributes_only_has_no_text() -> None:
    domain = Domain.from_xml(
        parse("<domain><memory unit='KiB'/><os><type arch='a'/></os></domain>")
    )
    assert (domain.memory, domain.memory_unit) == (None, "KiB")
    assert (domain.os_type, domain.arch) == (None, "a")


def test_entities_are_not_resolved(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("canary-of-the-host", encoding="ascii")
    document = (
        f'<!DOCTYPE domain [<!ENTITY file SYSTEM "{canary.as_uri()}"><!ENTITY own "canary-own">]>'
        "<domain><name>&file;&own;</name></domain>"
    )
    assert "canary" not in (Domain.from_xml(parse(document)).name or "")
