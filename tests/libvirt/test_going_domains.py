"""Domains that go while they are looked at."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import cast

import libvirt
import pytest
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import InstanceSpec

from backends.contract import Observer
from backends.errors import InstanceNotFoundError
from backends.libvirt.connection import Connection
from backends.libvirt.counters import Counters
from backends.libvirt.domains import Domains

URI = "test:///default"
GOING, STAYING = str(uuid.uuid4()), str(uuid.uuid4())
DOMAIN = """
<domain type="test">
  <name>{id}</name><uuid>{id}</uuid><memory>1</memory><os><type>hvm</type></os>
</domain>
"""


class DomainsOfWhichOneGoes(Domains):
    """Between the answer of libvirt and the look at the domain somebody destroys it."""

    def read(self, domain: libvirt.virDomain) -> Instance:
        if domain.UUIDString() == GOING:
            with suppress(libvirt.libvirtError):  # looked at twice
                domain.destroy()
        return super().read(domain)


@pytest.fixture
def domains() -> Iterator[Domains]:
    connection = libvirt.open(URI)
    for one in (GOING, STAYING):
        connection.createXML(DOMAIN.format(id=one))
    made = DomainsOfWhichOneGoes()
    handles = SimpleNamespace(uri=URI, handles=SimpleNamespace(own=connection))
    made.open(cast(Connection, handles), cast(Observer, SimpleNamespace()))
    yield made
    made.close()
    for domain in connection.listAllDomains():
        if domain.UUIDString() in (GOING, STAYING):
            domain.destroy()


def test_counters_of_what_has_gone_are_those_of_an_unknown_instance(domains: Domains) -> None:
    with pytest.raises(InstanceNotFoundError):
        Counters(domains).sample_one(GOING)


def test_what_has_gone_keeps_no_other_from_being_sampled(domains: Domains) -> None:
    sampled = {sample.instance_id for sample in Counters(domains).sample()}
    assert STAYING in sampled
    assert GOING not in sampled


def test_name_of_what_has_gone_is_free(domains: Domains) -> None:
    assert domains.namesakes(GOING, InstanceSpec(name=GOING)) == []
