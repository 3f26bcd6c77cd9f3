"""The verbs of the host as a whole, put together."""

from collections.abc import Mapping

from backends.contract import Backend
from service.bindings import Bindings
from service.host_door import HostDoor
from service.inventory import InventoryPolicy
from service.operations.runner import Operations
from service.own.evacuation import Evacuation
from service.own.host import DaemonState, HostVerbs
from service.own.host_changes import AggregateChanges, HostChanges
from service.own.maintenance import Maintenance
from service.own.resources import ResourceVerbs
from service.pools import Pools
from service.truth import Truth
from service.verbs import Verb

_MIGRATE = "/virtrpc.v1.MigrationService/LiveMigrateInstance"


def bind_host(
    bindings: Bindings,
    operations: Operations,
    *,
    backend: Backend,
    daemon: DaemonState,
    door: HostDoor,
    truth: Truth,
    verbs: Mapping[str, Verb],
    pools: Pools,
    policy: InventoryPolicy,
) -> ResourceVerbs:
    """Adds them to what is bound; gives those that sample what the host has."""
    state = door.state
    host = HostVerbs(
        daemon=daemon, bindings=bindings, verbs=verbs.values(), truth=truth, state=state
    )
    resources = ResourceVerbs(
        backend=backend, host=host, state=state, truth=truth, pools=pools, policy=policy
    )
    bindings.add_own(host)
    bindings.add_own(resources)
    bindings.add_facet(HostChanges(door, host=host.host))
    bindings.add_facet(AggregateChanges(state))
    bindings.add_facet(
        Maintenance(
            door,
            Evacuation(operations, bindings, migrate=verbs[_MIGRATE], is_on=truth.is_on),
            host=host.host,
            instances=truth.all,
        )
    )
    return resources
