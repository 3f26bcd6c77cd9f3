"""Identities get the roles that patterns give them, and no others."""

import pytest
from virtrpc.v1.options_pb2 import ROLE_ADMIN, ROLE_MIGRATOR, ROLE_OPERATOR, ROLE_VIEWER

from service.roles import NOBODY, IdentityPattern, RoleBindings, including


def matches(pattern: str, name: str) -> bool:
    return IdentityPattern.parse(pattern).matches(name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("spiffe://a/b", "spiffe://a/b"),
        ("spiffe://a/*", "spiffe://a/b"),
        ("spiffe://a/host-*/daemon", "spiffe://a/host-7/daemon"),
        ("spiffe://a/**", "spiffe://a/b/c"),
        ("spiffe://*/b", "spiffe://x.example/b"),
        ("ops.example", "ops.example"),
        ("OPS.example", "ops.example"),
        ("*.example", "ops.example"),
        ("**.example", "a.b.example"),
    ],
)
def test_pattern_matches(pattern: str, name: str) -> None:
    assert matches(pattern, name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("spiffe://a/b", "spiffe://a/bc"),
        ("spiffe://a/b", "spiffe://a/B"),
        ("spiffe://a/b", "xspiffe://a/b"),
        ("spiffe://a/*", "spiffe://a/b/c"),
        ("spiffe://a/*", "spiffe://a/"),
        ("spiffe://*/b", "spiffe://x/y/b"),
        ("spiffe://a.b/c", "spiffe://axb/c"),
        ("spiffe://a/[bc]", "spiffe://a/b"),
        ("spiffe://a/?", "spiffe://a/b"),
        ("*.example", "a.b.example"),
        ("*.example", "example"),
        ("*.example", "xexample"),
        ("**", "spiffe://a/b"),
        ("**", "local:unix"),
        ("*", "a.b"),
    ],
)
def test_pattern_does_not_match(pattern: str, name: str) -> None:
    assert not matches(pattern, name)


@pytest.mark.parametrize("text", ["", " ", "spiffe://", "a b", "a/b", "spiffe://a/\n", "a\n", "ä"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither a URI nor a DNS name"):
        IdentityPattern.parse(text)


def test_identity_without_a_binding_has_no_role() -> None:
    assert RoleBindings().of("spiffe://a/b") == NOBODY


def test_roles_of_all_bindings_add_up() -> None:
    bindings = RoleBindings(
        operators=[IdentityPattern("spiffe://a/*")], migrators=[IdentityPattern("spiffe://a/b")]
    )
    assert bindings.of("spiffe://a/b") == {ROLE_VIEWER, ROLE_OPERATOR, ROLE_MIGRATOR}
    assert bindings.of("spiffe://a/c") == {ROLE_VIEWER, ROLE_OPERATOR}


def test_roles_are_ordered_but_for_migrator() -> None:
    assert including(ROLE_VIEWER) < including(ROLE_OPERATOR) < including(ROLE_ADMIN)
    assert including(ROLE_VIEWER) < including(ROLE_MIGRATOR) < including(ROLE_ADMIN)
    assert ROLE_MIGRATOR not in including(ROLE_OPERATOR)
    assert ROLE_OPERATOR not in including(ROLE_MIGRATOR)
