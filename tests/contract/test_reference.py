"""docs/api tells of every RPC, and its links lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.verbs import Verb, all_verbs

PAGES = Path(__file__).resolve().parents[2] / "docs" / "api"
VERBS = list(all_verbs().values())


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"\W+", "-", re.sub(r"\[(.*)\]\(.*\)", r"\1", h)).lower() for h in headings}


def links(page: Path) -> Iterator[tuple[str, str]]:
    """Page and anchor of every link."""
    for target in re.findall(r"\]\(([^)]*)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        yield name or page.name, anchor


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: str(page.name))
def test_links_lead_to_a_heading(page: Path) -> None:
    known = {other.name: anchors(other) for other in PAGES.glob("*.md")}
    lost = {(name, anchor) for name, anchor in links(page) if anchor and anchor not in known[name]}
    assert lost == set()


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: str(verb.name))
def test_rpc_is_on_the_page_of_its_service_and_on_the_first_page(verb: Verb) -> None:
    first = (PAGES / "README.md").read_text(encoding="utf-8")
    (page,) = re.findall(rf"^\| \[{verb.name}\]\((\w+\.md)#", first, re.M)
    text = (PAGES / page).read_text(encoding="utf-8")
    assert text.splitlines()[2] == f"# {verb.service.rpartition('.')[2]}"
    (told,) = re.findall(rf"^### {verb.name}$(.*?)^(?:###? |\Z)", text, re.M | re.S)
    for method in verb.options.driver_methods:
        assert f"`{method}`" in told
