"""The little there is to it: dataclasses whose fields say where in the XML they are.

A field is placed by a path below its element: "target/@dev" is an attribute,
"source" the text of a child, "devices/disk" (with `many`) repeated children. The
same declaration writes and reads.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from lxml import etree

Node = etree._Element
E = TypeVar("E", bound="Element")
# https://www.w3.org/TR/xml/#charsets
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class _Place:
    path: str
    write: Callable[[Any], str] = str
    read: Callable[[str], Any] = str
    element: "type[Element] | None" = None
    repeated: bool = False
    nested: bool = False
    flag: bool = False


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def text(path: str) -> Any:
    """A string at a path; None: absent. As the text of an element it is not empty."""
    return field(default=None, metadata={"place": _Place(path)})


def number(path: str) -> Any:
    """A whole number at a path; None: absent."""
    return field(default=None, metadata={"place": _Place(path, read=int)})


def yes_no(path: str) -> Any:
    """A "yes" or "no" at a path; None: absent."""
    place = _Place(path, write=_yes_no, read=lambda value: value == "yes")
    return field(default=None, metadata={"place": place})


def flag(path: str) -> Any:
    """An empty element that is there or not."""
    return field(default=False, metadata={"place": _Place(path, flag=True)})


def one(path: str, element: "type[Element]") -> Any:
    """A child element; None: absent."""
    return field(default=None, metadata={"place": _Place(path, element=element)})


def many(path: str, element: "type[Element]") -> Any:
    """Repeated child elements."""
    place = _Place(path, element=element, repeated=True)
    return field(default_factory=list, metadata={"place": place})


def nested(path: str, element: "type[Element]") -> Any:
    """Elements each of which is in the one before, the last empty; None: absent."""
    return field(default=None, metadata={"place": _Place(path, element=element, nested=True)})


@dataclass
class Element:
    """An XML element with declared fields."""

    tag: ClassVar[str]

    def to_xml(self) -> Node:
        """The element as a new node."""
        node = etree.Element(self.tag)
        for declared in fields(self):
            place, value = declared.metadata["place"], getattr(self, declared.name)
            if value is not None and (value or not (place.flag or place.repeated)):
                _write(node, place, value)
        return node

    @classmethod
    def from_xml(cls: type[E], node: Node) -> E:
        """The element read from a node; what is not declared is passed over."""
        values = {
            declared.name: _read(node, declared.metadata["place"]) for declared in fields(cls)
        }
        return cls(**values)


def is_writable(text: str) -> bool:
    """Whether XML can hold a text at all; of control characters it has but three."""
    return _NOT_IN_XML.search(text) is None


def to_text(node: Node) -> str:
    """A node as text for libvirt."""
    return etree.tostring(node, encoding="unicode", pretty_print=True)


def parse(document: str) -> Node:
    """Text from libvirt as a node; entities and networks are never touched."""
    return etree.fromstring(document, etree.XMLParser(resolve_entities=False, no_network=True))


def _write(node: Node, place: _Place, value: Any) -> None:
    steps = place.path.split("/")
    for step in steps[:-1]:
        node = _child(node, step)
    last = steps[-1]
    if place.nested:
        for item in value:
            node.append(node := item.to_xml())
        etree.SubElement(node, last)
    elif place.repeated:
        node.extend(item.to_xml() for item in value)
    elif place.element is not None:
        node.append(value.to_xml())
    elif place.flag:
        _child(node, last)
    elif last.startswith("@"):
        node.set(last[1:], place.write(value))
    else:
        _child(node, last).text = place.write(value)


def _child(node: Node, tag: str) -> Node:
    found = node.find(tag)
    return etree.SubElement(node, tag) if found is None else found


def _read(node: Node, place: _Place) -> Any:
    if place.nested and place.element is not None:
        return _read_nested(node, place.path, place.element)
    if place.repeated and place.element is not None:
        return [place.element.from_xml(found) for found in node.findall(place.path)]
    if place.element is not None:
        found = node.find(place.path)
        return None if found is None else place.element.from_xml(found)
    if place.flag:
        return node.find(place.path) is not None
    value = _text_at(node, place.path)
    return None if value is None else place.read(value)


def _read_nested(node: Node, path: str, element: "type[Element]") -> list[Element] | None:
    found = node.find(path)
    if found is None:
        return None
    items: list[Element] = []
    while found is not None and (item := element.from_xml(found)) != element():
        items.append(item)
        found = found.find(path)
    return items


def _text_at(node: Node, path: str) -> str | None:
    steps, _, attribute = path.rpartition("@")
    if not attribute or path == attribute:
        # Without a text it may be there for its attributes only.
        found = node.find(path)
        return None if found is None else found.text
    holder = node.find(steps.rstrip("/")) if steps else node
    return None if holder is None else holder.get(attribute)
