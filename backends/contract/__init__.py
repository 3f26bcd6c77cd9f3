"""The contract of a hypervisor: what the daemon asks of a backend.

A backend is a handful of facets. A facet implements some verbs of the contract
under the RPCs' names in snake case; what no facet implements is unsupported, and
so is what the backend's start-up probe finds missing. Verbs block: the
daemon calls them on its worker threads, mutations with a `Work`, reads without.
"""

from backends.contract.backend import (
    Backend,
    Facet,
    HostSample,
    HypervisorFacts,
    Observer,
    Sample,
    UndoActions,
    undo_actions,
)
from backends.contract.consoles import ConsolePlace, Consoles
from backends.contract.facets import (
    Diagnostics,
    GuestAgent,
    InstanceFiles,
    Intent,
    Lifecycle,
    Power,
    Suspension,
)
from backends.contract.host import Adoption, HostPower
from backends.contract.images import Images
from backends.contract.interfaces import Firewall, Interfaces
from backends.contract.migration import (
    ColdMigration,
    CpuCompatibility,
    LiveMigration,
    MigrationDestination,
    Peer,
    Peers,
    SharedStorage,
)
from backends.contract.rebuild import Rebuild
from backends.contract.rescue import Rescue
from backends.contract.shares import Shares
from backends.contract.snapshots import Snapshots
from backends.contract.volumes import VolumeFacts, Volumes, VolumeSnapshots

__all__ = [
    "Adoption",
    "Backend",
    "ColdMigration",
    "ConsolePlace",
    "Consoles",
    "CpuCompatibility",
    "Diagnostics",
    "Facet",
    "Firewall",
    "GuestAgent",
    "HostPower",
    "HostSample",
    "HypervisorFacts",
    "Images",
    "InstanceFiles",
    "Intent",
    "Interfaces",
    "Lifecycle",
    "LiveMigration",
    "MigrationDestination",
    "Observer",
    "Peer",
    "Peers",
    "Power",
    "Rebuild",
    "Rescue",
    "Sample",
    "SharedStorage",
    "Shares",
    "Snapshots",
    "Suspension",
    "UndoActions",
    "VolumeFacts",
    "VolumeSnapshots",
    "Volumes",
    "undo_actions",
]
