"""The descriptors mirror the hypervisor driver contract: every method of it, and no other."""

from collections.abc import Mapping

import pytest

from service.verbs import Verb, all_verbs
from tests.contract.driver_methods import DRIVER_METHODS, KINDS

VERBS: Mapping[str, Verb] = {verb.name: verb for verb in all_verbs().values()}
MIRRORED = {
    (service, rpc): (entry.split()[0], entry.split()[1:])
    for service, rpcs in DRIVER_METHODS.items()
    for rpc, entry in rpcs.items()
}


def test_descriptors_hold_the_rpcs_of_the_contract_and_no_others() -> None:
    declared = {(verb.service, verb.name) for verb in all_verbs().values()}
    assert declared == {(f"virtrpc.v1.{service}", rpc) for service, rpc in MIRRORED}


@pytest.mark.parametrize(("service", "rpc"), MIRRORED)
def test_rpc_mirrors_its_driver_methods(service: str, rpc: str) -> None:
    _, methods = MIRRORED[service, rpc]
    assert sorted(VERBS[rpc].options.driver_methods) == sorted(methods)


@pytest.mark.parametrize(("service", "rpc"), MIRRORED)
def test_rpc_is_of_the_kind_that_the_contract_asks_for(service: str, rpc: str) -> None:
    kind, _ = MIRRORED[service, rpc]
    assert VERBS[rpc].kind == KINDS[kind]


def test_every_driver_method_is_mirrored_by_an_rpc() -> None:
    asked = {method for _, methods in MIRRORED.values() for method in methods}
    mirrored = {m for verb in VERBS.values() for m in verb.options.driver_methods}
    assert mirrored == asked


def test_rpc_names_are_unique_over_all_services() -> None:
    assert len(VERBS) == len(all_verbs())
