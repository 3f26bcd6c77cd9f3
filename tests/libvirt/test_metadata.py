"""A domain's metadata: they tell the specification, no secret, and damage is no disaster."""

import json
from collections.abc import Callable
from contextlib import suppress

import libvirt
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from structlog.testing import capture_logs
from virtrpc.v1.spec_pb2 import InstanceSpec
from virtrpc.v1.types_pb2 import PowerState

from backends.libvirt.instances import read_instance
from backends.libvirt.xml import metadata
from backends.libvirt.xml.element import Node, parse, to_text
from backends.libvirt.xml.metadata import DamagedMetadataError, InstanceMetadata, RescueMetadata
from backends.redaction import redacted
from tests.libvirt.canaries import forms_of, specifications_with_secrets
from tests.libvirt.test_element import TEXTS

INSTANCE_ID = "0f9a5c1e-6d2b-4c8e-9d55-3b1f0a2c7e44"
FOREIGN = "<app:note xmlns:app='https://example.org/app'><app:spec>{}</app:spec></app:note>"
CREATED = Timestamp(seconds=1_767_323_045, nanos=5_000)
TIMES = st.builds(Timestamp, seconds=st.integers(1, 2**37), nanos=st.integers(0, 999_999_999))
OWN_FACTS = st.builds(
    InstanceMetadata,
    spec=st.builds(
        InstanceSpec,
        name=TEXTS,
        metadata=st.dictionaries(TEXTS, TEXTS, max_size=3),
        labels=st.dictionaries(TEXTS, TEXTS, max_size=3),
    ),
    created_at=TIMES,
    metadata=st.dictionaries(TEXTS, TEXTS, max_size=3),
    bootable=st.booleans(),
    wanted=st.sampled_from(PowerState.values()),
    reclaim_at=st.none() | TIMES,
    rebuilt_by=TEXTS,
    rescue=st.none()
    | st.builds(
        RescueMetadata,
        image_id=TEXTS,
        since=TIMES,
        kernel=TEXTS,
        ramdisk=TEXTS,
        kernel_args=TEXTS,
        boot=TEXTS,
        config_drive=TEXTS,
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "flavor", "vcpus", "labels", "interfaces", "x"]), inner
        )
    ),
    max_leaves=6,
)


def own_facts(spec: InstanceSpec | None = None) -> InstanceMetadata:
    spec = spec or InstanceSpec(name="web-1")
    return InstanceMetadata(spec, created_at=CREATED, metadata=dict(spec.metadata))


def domain_with(*contents: Node) -> Node:
    """A domain whose metadata have these elements."""
    domain = parse(
        f"<domain type='test'><name>web-1</name><uuid>{INSTANCE_ID}</uuid>"
        "<memory>1024</memory><vcpu>1</vcpu><os><type>hvm</type></os><metadata/></domain>"
    )
    holder = domain.find("metadata")
    assert holder is not None
    holder.extend(contents)
    return domain


def changed(change: Callable[[Node], object]) -> Node:
    """A domain whose metadata were good before this change."""
    node = metadata.to_node(own_facts())
    change(node)
    return domain_with(node)


def set_spec(node: Node, text: str | None) -> None:
    found = node.find(f"{{{metadata.NAMESPACE}}}spec")
    assert found is not None
    found.text = text


@settings(max_examples=60, deadline=None)
@given(own=OWN_FACTS)
def test_metadata_read_back_as_they_were_written(own: InstanceMetadata) -> None:
    domain = domain_with()
    metadata.put_into(domain, own)
    assert metadata.find_in(parse(to_text(domain))) == own


def test_every_kind_of_secret_is_tried() -> None:
    tried = {canary for _, canaries in specifications_with_secrets() for canary in canaries}
    assert {canary.rpartition(".")[2] for canary in tried} == {
        "admin_password", "user_data", "content", "passphrase", "chap_password", "key",
    }  # fmt: skip


def test_no_secret_is_written() -> None:
    for spec, canaries in specifications_with_secrets():
        text = to_text(metadata.to_node(own_facts(spec)))
        assert not [form for canary in canaries for form in forms_of(canary) if form in text]


def test_all_but_the_secrets_reads_back() -> None:
    for spec, _ in specifications_with_secrets():
        found = metadata.find_in(domain_with(metadata.to_node(own_facts(spec))))
        assert found is not None
        assert found.spec == redacted(spec) != spec


@pytest.mark.parametrize(
    "domain",
    [
        parse("<domain/>"),
        parse("<domain><metadata/></domain>"),
        domain_with(parse(FOREIGN)),
        domain_with(parse("<instance><spec>{}</spec></instance>")),
        domain_with(parse(f"<a:instance xmlns:a='{metadata.NAMESPACE}0'/>")),
    ],
    ids=["none", "empty", "foreign", "no namespace", "another namespace"],
)
def test_domain_without_our_metadata_is_not_ours(domain: Node) -> None:
    assert metadata.find_in(domain) is None


def test_foreign_metadata_beside_ours_are_passed_over() -> None:
    domain = domain_with(parse(FOREIGN), metadata.to_node(own_facts()))
    assert metadata.find_in(domain) == own_facts()


def test_fields_of_a_newer_service_are_passed_over() -> None:
    newer = {"name": "web-1", "hologram": {"a": [1]}, "machine": {"firmware": "FIRMWARE_TYPE_X"}}

    def change(node: Node) -> None:
        set_spec(node, json.dumps(newer))
        node.set("aura", "green")
        etree.SubElement(node, f"{{{metadata.NAMESPACE}}}aura").text = "green"

    found = metadata.find_in(changed(change))
    assert found is not None
    assert (found.spec.name, found.created_at) == ("web-1", CREATED)


@pytest.mark.parametrize(
    "text",
    [None, "", " ", "{", "null", "7", '{"name": 7}', '{"flavor": 7}', "\ud7ff",
     '{"name": "\\ud800"}', '{"flavor": {"vcpus": -1}}', "[" * 5000, '{"flavor":' * 200],
)  # fmt: skip
def test_metadata_without_a_specification_are_damaged(text: str | None) -> None:
    with pytest.raises(DamagedMetadataError):
        metadata.find_in(changed(lambda node: set_spec(node, text)))


def test_metadata_whose_specification_is_gone_are_damaged() -> None:
    with pytest.raises(DamagedMetadataError):
        metadata.find_in(changed(lambda node: node.remove(node[0])))


@pytest.mark.parametrize("text", [None, "", "yesterday", "2026", "9999999-01-01T00:00:00Z"])
def test_time_that_is_not_understood_is_not_known(text: str | None) -> None:
    def change(node: Node) -> None:
        for name in ("created", "reclaim"):
            node.set(name, text or "")
            if text is None:
                del node.attrib[name]

    found = metadata.find_in(changed(change))
    assert found is not None
    assert (found.created_at, found.reclaim_at) == (Timestamp(), None)


def test_power_state_that_is_not_known_is_not_wanted() -> None:
    found = metadata.find_in(changed(lambda node: node.set("wanted", "POWER_STATE_HOVERING")))
    assert found is not None
    assert found.wanted == PowerState.POWER_STATE_UNSPECIFIED


@settings(max_examples=200, deadline=None)
@given(
    spec=TEXTS | JSON.map(json.dumps),
    attributes=st.dictionaries(
        st.sampled_from(["created", "reclaim", "wanted", "bootable"]), TEXTS
    ),
)
def test_anything_else_is_metadata_or_damage(spec: str, attributes: dict[str, str]) -> None:
    def change(node: Node) -> None:
        set_spec(node, spec)
        for name, value in attributes.items():
            node.set(name, value)

    with suppress(DamagedMetadataError):
        assert metadata.find_in(changed(change)) is not None


def test_domain_with_damaged_metadata_is_listed_as_unmanaged(
    test_driver: libvirt.virConnect,
) -> None:
    domain = test_driver.defineXML(to_text(changed(lambda node: set_spec(node, "{"))))
    try:
        with capture_logs() as logs:
            instance = read_instance(domain)
    finally:
        domain.undefine()
    assert (instance.name, instance.managed) == ("web-1", False)
    assert [(entry["log_level"], entry["instance_id"]) for entry in logs] == [
        ("warning", INSTANCE_ID)
    ]


def test_time_that_is_not_known_is_unset_in_the_instance(test_driver: libvirt.virConnect) -> None:
    domain = test_driver.defineXML(to_text(changed(lambda node: node.attrib.pop("created"))))
    try:
        instance = read_instance(domain)
    finally:
        domain.undefine()
    assert instance.managed
    assert not instance.HasField("created_at")


def test_bare_element_is_what_libvirts_own_call_takes(test_driver: libvirt.virConnect) -> None:
    domain = test_driver.defineXML(to_text(domain_with(metadata.to_node(own_facts()))))
    own = own_facts(InstanceSpec(name="web-1", metadata={"<k&\"'": "😀"}))
    try:
        domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            to_text(metadata.to_node(own, bare=True)),
            metadata.PREFIX,
            metadata.NAMESPACE,
            libvirt.VIR_DOMAIN_AFFECT_CONFIG,
        )
        kept = parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    finally:
        domain.undefine()
    assert metadata.find_in(kept) == own
