"""All verbs of the contract bound to what carries them out: the backend, or the daemon itself."""

from backends.contract import Lifecycle
from service import rescues
from service.bindings import Bindings
from service.core import Core
from service.errands import Errand
from service.operations.execution import Method
from service.own.arrivals import DiskArrivals
from service.own.console_access import AccessVerbs
from service.own.diagnostics import DiagnosticsVerbs
from service.own.events import EventVerbs
from service.own.host_services import bind_host
from service.own.images import ImageVerbs
from service.own.instances import InstanceReads
from service.own.migrations import MigrationVerbs
from service.own.operations import OperationVerbs
from service.own.rescues import RescueVerbs
from service.rescues import Rescues
from service.verbs import Verb, all_verbs


class BoundVerbs:
    """The verbs by path, what carries each out, and those of the daemon's own that chores use."""

    def __init__(self, core: Core) -> None:
        self.by_path = all_verbs()
        self.bindings = Bindings(own=_own_verbs(core), facets=core.backend.facets())
        self.resources = bind_host(
            self.bindings,
            core.operations,
            backend=core.backend,
            daemon=core.daemon,
            door=core.door,
            truth=core.truth,
            verbs=self.by_path,
            pools=core.pools,
            policy=core.settings.inventory,
        )
        self.rescues = self._rescues(core)
        self._images = self._image_verbs(core)
        self._access = self._access_verbs(core)

    def verb(self, service: str, rpc: str) -> Verb:
        """A verb of the contract."""
        return self.by_path[f"/virtrpc.v1.{service}/{rpc}"]

    def errand(self, core: Core, service: str, rpc: str, caller: str) -> Errand:
        """A verb that the daemon calls by itself, under that name."""
        return Errand(core.operations, self.bindings, self.verb(service, rpc), caller=caller)

    def mutations(self) -> dict[str, tuple[Verb, Method]]:
        """Verbs that the journal may hold, by name, with what takes them up after a restart."""
        of_backend = {
            verb.name: (verb, method)
            for verb in self.by_path.values()
            if verb.mutates and (method := self.bindings.backend(verb)) is not None
        }
        return of_backend | self._images.mutations() | self._access.mutations()

    def _rescues(self, core: Core) -> Rescues:
        unrescue = self.errand(core, "InstanceService", "UnrescueInstance", rescues.CALLER)
        ending = Rescues(core.truth, unrescue)
        self.bindings.add_facet(RescueVerbs(ending))
        return ending

    def _image_verbs(self, core: Core) -> ImageVerbs:
        images = ImageVerbs(
            store=core.backend.image_store,
            users=core.backend.image_users,
            truth=core.truth,
            operations=core.operations,
            pools=core.pools,
            upload=self.verb("ImageService", "UploadImage"),
        )
        self.bindings.add_own(images)
        return images

    def _access_verbs(self, core: Core) -> AccessVerbs:
        access = core.consoles.access_verbs(
            core.operations, self.verb("ConsoleService", "GetConsole")
        )
        self.bindings.add_own(access)
        return access


def _own_verbs(core: Core) -> list[object]:
    lifecycle = next((f for f in core.backend.facets() if isinstance(f, Lifecycle)), None)
    return [
        InstanceReads(core.truth, lifecycle=lifecycle, pools=core.pools),
        OperationVerbs(core.operations),
        EventVerbs(core.hub, core.truth),
        DiagnosticsVerbs(
            truth=core.truth,
            samples=core.samples,
            book=core.operations.book,
            pools=core.pools,
            sample_one=core.backend.sample_one,
        ),
        *core.consoles.verbs(),
        MigrationVerbs(core.backend.migrations, core.operations),
        DiskArrivals(core.backend.receptions, pools=core.pools, closing=core.closing),
    ]
