"""Roles, and to whom the configuration gives them. Who has none may do nothing."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from virtrpc.v1 import options_pb2
from virtrpc.v1.options_pb2 import Role

Roles = frozenset[int]
NOBODY: Roles = frozenset()
# Roles that each role includes, itself among them.
_INCLUDES: Mapping[int, Roles] = {
    options_pb2.ROLE_VIEWER: frozenset({options_pb2.ROLE_VIEWER}),
    options_pb2.ROLE_OPERATOR: frozenset({options_pb2.ROLE_VIEWER, options_pb2.ROLE_OPERATOR}),
    options_pb2.ROLE_MIGRATOR: frozenset({options_pb2.ROLE_VIEWER, options_pb2.ROLE_MIGRATOR}),
    options_pb2.ROLE_ADMIN: frozenset(set(Role.values()) - {options_pb2.ROLE_UNSPECIFIED}),
}


def including(*roles: "Role.ValueType") -> Roles:
    """These roles with all that they include."""
    return NOBODY.union(*(_INCLUDES.get(role, NOBODY) for role in roles))


def word(role: int) -> str:
    """A role in the words of the configuration, e.g. "operator"."""
    return Role.Name(role).removeprefix("ROLE_").lower()  # type: ignore[arg-type]


@dataclass(frozen=True)
class IdentityPattern:
    """An identity, or several by `*`: at least one character, none of them a separator.

    Separators are `/` in URIs and `.` in DNS names; `**` passes over them. All else
    stands for itself: "spiffe://example.org/host/*", "*.ops.example.org".
    """

    text: str

    @classmethod
    def parse(cls, text: str) -> "IdentityPattern":
        """Raises ValueError where it is neither a URI nor a DNS name but for its stars."""
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[\x21-\x7e]+|[A-Za-z0-9_.*-]+", text):
            raise ValueError(f"{text!r} is neither a URI nor a DNS name, with * or without")
        return cls(text if "://" in text else text.lower())

    def matches(self, name: str) -> bool:
        """Whether it stands for this identity."""
        return self._expression.fullmatch(name) is not None

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        is_uri = "://" in self.text
        # Never across kinds: no DNS name has a colon.
        stars = {"*": "[^/]+", "**": ".+"} if is_uri else {"*": "[^.:/]+", "**": "[^:/]+"}
        parts = re.split(r"(\*\*?)", self.text)
        return re.compile("".join(stars.get(part) or re.escape(part) for part in parts))


@dataclass(frozen=True, kw_only=True)
class RoleBindings:
    """Which identities have which roles."""

    viewers: Sequence[IdentityPattern] = ()
    operators: Sequence[IdentityPattern] = ()
    migrators: Sequence[IdentityPattern] = ()
    admins: Sequence[IdentityPattern] = ()

    def of(self, name: str) -> Roles:
        """All roles of an identity, with what they include; none: default deny."""
        bound = {
            options_pb2.ROLE_VIEWER: self.viewers,
            options_pb2.ROLE_OPERATOR: self.operators,
            options_pb2.ROLE_MIGRATOR: self.migrators,
            options_pb2.ROLE_ADMIN: self.admins,
        }
        return including(
            *(
                role
                for role, patterns in bound.items()
                if any(pattern.matches(name) for pattern in patterns)
            )
        )
