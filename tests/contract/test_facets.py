"""The facets of backends/contract carry the RPCs' names and messages, and backends fill them."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from backends import contract
from backends.contract import Backend, Facet
from backends.loading import BackendOptions, load_backend
from backends.work import Work
from service.verbs import Verb, all_verbs, snake_case

VERBS: Mapping[str, Verb] = {verb.attribute: verb for verb in all_verbs().values()}
FACETS: Mapping[str, type[Facet]] = {
    name: thing
    for name, thing in vars(contract).items()
    if inspect.isclass(thing) and issubclass(thing, Facet) and thing is not Facet
}


def methods(facet: type[Facet]) -> Iterator[tuple[str, Any]]:
    for name in sorted(facet.__abstractmethods__):
        yield name, getattr(facet, name)


METHODS = [(facet, name) for facet in FACETS.values() for name, _ in methods(facet)]


@pytest.fixture
def loaded(backend: str, tmp_path: Path) -> Backend:
    """A backend that is not open."""
    images = tmp_path / "images"
    images.mkdir()
    return load_backend(backend, BackendOptions(state_dir=tmp_path, image_dir=images))


@pytest.mark.parametrize(("facet", "name"), METHODS)
def test_method_of_a_facet_is_a_verb_of_the_contract(facet: type[Facet], name: str) -> None:
    assert name in VERBS, f"{facet.__name__}.{name} is no RPC"


@pytest.mark.parametrize(("facet", "name"), METHODS)
def test_method_takes_and_returns_the_messages_of_its_rpc(facet: type[Facet], name: str) -> None:
    verb = VERBS[name]
    hints = get_type_hints(getattr(facet, name))
    assert hints["request"] is verb.request_class
    assert hints["return"] is reply_class(verb)


@pytest.mark.parametrize(("facet", "name"), METHODS)
def test_mutations_get_a_work_and_reads_do_not(facet: type[Facet], name: str) -> None:
    parameters = list(inspect.signature(getattr(facet, name)).parameters)
    assert parameters == ["self", "request", *(["work"] if VERBS[name].mutates else [])]
    assert get_type_hints(getattr(facet, name)).get("work") is (
        Work if VERBS[name].mutates else None
    )


def test_no_verb_stands_in_two_facets() -> None:
    names = [name for _, name in METHODS]
    assert len(names) == len(set(names))


def test_a_facet_has_nothing_but_verbs() -> None:
    for facet in FACETS.values():
        public = {name for name in vars(facet) if not name.startswith("_")}
        assert public == facet.__abstractmethods__


def test_backend_fills_whole_facets_of_the_contract(loaded: Backend) -> None:
    for facet in loaded.facets():
        bases = [base for base in FACETS.values() if isinstance(facet, base)]
        assert bases, f"{type(facet).__name__} is no facet of the contract"
        assert not type(facet).__abstractmethods__


def test_backend_offers_no_verb_beside_its_facets(loaded: Backend) -> None:
    """A public method named like a verb would be bound, whatever its signature."""
    for facet in loaded.facets():
        declared = {n for base in FACETS.values() if isinstance(facet, base) for n in vars(base)}
        public = {name for name in dir(facet) if name in VERBS}
        assert public <= declared


def test_backend_keeps_the_signatures_of_the_contract(loaded: Backend) -> None:
    for facet in loaded.facets():
        for base in (base for base in FACETS.values() if isinstance(facet, base)):
            for name, declared in methods(base):
                own = getattr(type(facet), name)
                assert list(inspect.signature(own).parameters) == list(
                    inspect.signature(declared).parameters
                )
                assert get_type_hints(own) == get_type_hints(declared)


def test_fake_fills_every_facet(tmp_path: Path) -> None:
    """The fake backend is what controllers are developed against: it does every row."""
    fake = load_backend("fake", BackendOptions(state_dir=tmp_path, image_dir=tmp_path))
    filled = {base for base in FACETS.values() for f in fake.facets() if isinstance(f, base)}
    assert filled == set(FACETS.values())


@pytest.mark.parametrize(
    ("rpc", "method"),
    [
        ("SpawnInstance", "spawn_instance"),
        ("CompareCpu", "compare_cpu"),
        ("ResumeInstanceOnHostBoot", "resume_instance_on_host_boot"),
        ("GetVMInfo", "get_vm_info"),
    ],
)
def test_rpc_name_in_snake_case(rpc: str, method: str) -> None:
    assert snake_case(rpc) == method


def reply_class(verb: Verb) -> type[Message]:
    """What the backend's method returns: the response, or the result of the operation."""
    if not verb.long_running:
        return verb.response_class
    return GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(verb.options.result))
