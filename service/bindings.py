"""Which method carries out which verb, and which verbs nothing here can carry out."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from backends.contract import Facet
from backends.errors import UnsupportedError
from service.verbs import Verb


class Bindings:
    """What carries out each verb."""

    def __init__(self, *, own: Iterable[object], facets: Iterable[Facet]) -> None:
        self._own = list(own)
        self._facets = list(facets)
        self.missing: Mapping[str, str] = {}
        """Capabilities that the start-up probe found missing, and why."""

    def add_own(self, verbs: object) -> None:
        """More verbs of the daemon's own."""
        self._own.append(verbs)

    def add_facet(self, facet: Facet) -> None:
        """Mutations of what the service itself knows, carried out like those of a backend."""
        self._facets.append(facet)

    def own(self, verb: Verb) -> Callable[..., Any] | None:
        """The daemon's own method for a verb."""
        return _method(self._own, verb)

    def backend(self, verb: Verb) -> Callable[..., Any] | None:
        """The method for a verb that is carried out on a worker thread: mostly a backend's."""
        return _method(self._facets, verb)

    def why_missing(self, verb: Verb) -> str | None:
        """Why a verb is not supported here; None: it is."""
        if verb.capability in self.missing:
            return self.missing[verb.capability]
        if self.own(verb) is None and self.backend(verb) is None:
            return "this backend does not implement it"
        return None

    def require(self, verb: Verb) -> None:
        """Raises UnsupportedError where the verb is not supported."""
        why = self.why_missing(verb)
        if why is not None:
            raise UnsupportedError(verb.capability, why=why)


def _method(objects: Iterable[object], verb: Verb) -> Callable[..., Any] | None:
    for thing in objects:
        method: Callable[..., Any] | None = getattr(thing, verb.attribute, None)
        if method is not None:
            return method
    return None
