"""Finds backends by name, among the entry points `virtrpc.backends`."""

from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

from backends.contract import Backend, Peers
from backends.host_power import HostPowerPolicy
from backends.images import ImagePolicy
from backends.migration.no_peers import NoPeers
from backends.volumes import VolumePolicy


class UnknownBackendError(Exception):
    """No backend of that name is installed."""


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """What the daemon tells a backend of its settings."""

    state_dir: Path
    """Where it keeps what is its own; exists."""
    image_dir: Path
    """The image store; exists."""
    images: ImagePolicy = ImagePolicy()
    """What is allowed of images."""
    volumes: VolumePolicy = VolumePolicy()
    """What is allowed of volumes."""
    libvirt_uri: str = "qemu:///embed"
    virt_type: str = "auto"
    fake_faults: str = ""
    fake_lacks: str = ""
    """Capabilities that the fake backend is to lack, separated by commas."""
    share_dirs: tuple[Path, ...] = ()
    """Directories that may be shared with guests, with all below them; none: none may."""
    reclaim_after_s: float = 7 * 24 * 3600
    """How long soft-deleted instances are kept unless the request says."""
    dedicated_cpus: frozenset[int] = frozenset()
    """Host CPUs that are kept for instances which have them to themselves; empty: any may be."""
    pci_passthrough: tuple[str, ...] = ()
    """Patterns of PCI devices that instances may be given."""
    host_power: HostPowerPolicy = HostPowerPolicy()
    """Whether and how the host itself may be switched off."""
    host_id: str = ""
    """Which host this is, a UUID; empty: nobody shares its directories."""
    instance_dir: Path | None = None
    """Directory in which instances have their own; None: below `state_dir`."""
    peers: Peers = field(default_factory=NoPeers)
    """Daemons of other hosts."""
    hypervisor_uri: str = ""
    """At which other hosts' hypervisors reach this one's; empty: they do not."""
    migration_uri: str = ""
    """At which this host's hypervisor receives memory; empty: it chooses."""
    rollback_patience_s: float = 60.0
    """How long a migration's operation waits for its destination to roll back."""
    migration_tls: bool = False
    """Hypervisors encrypt what they send each other where a migration does not say."""


def load_backend(name: str, options: BackendOptions) -> Backend:
    """Makes the backend of a name; it is not opened yet."""
    found = entry_points(group="virtrpc.backends")
    if name not in found.names:
        raise UnknownBackendError(
            f"no backend {name!r}; there are: {', '.join(sorted(found.names))}"
        )
    try:
        backend_class = found[name].load()
    except ImportError as error:
        raise UnknownBackendError(
            f"backend {name!r} needs a package that is not installed ({error.name}):"
            f" pip install 'virtrpcd[{name}]'"
        ) from error
    backend: Backend = backend_class(options)
    return backend
