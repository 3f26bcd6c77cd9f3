"""What the daemon was told, merged."""

from dataclasses import dataclass
from pathlib import Path

from backends.host_power import HostPowerPolicy
from backends.images import ImagePolicy
from backends.volumes import VolumePolicy
from service.inventory import InventoryPolicy
from service.roles import RoleBindings
from service.settings.types import Network
from service.tls_files import TlsFiles


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything configurable, after flags, environment and file were merged."""

    backend: str
    state_dir: Path
    image_dir: Path
    listen: tuple[str, ...]
    insecure: bool
    tls: TlsFiles | None
    roles: RoleBindings
    connection_max_age_s: float
    metrics: str
    http: str
    http_url: str
    web_dir: Path
    recording_max_age_s: float
    recording_max_bytes: int
    peer_networks: tuple[Network, ...]
    instance_dir: Path
    hypervisor_uri: str
    migration_uri: str
    migration_tls: bool
    rollback_patience_s: float
    libvirt_uri: str
    virt_type: str
    fake_faults: str
    fake_lacks: str
    share_dirs: tuple[Path, ...]
    sample_interval_s: float
    resume_instances: bool
    reclaim_after_s: float
    rescue_timeout_s: float
    images: ImagePolicy
    volumes: VolumePolicy
    image_cache_interval_s: float
    inventory: InventoryPolicy
    dedicated_cpus: frozenset[int]
    pci_passthrough: tuple[str, ...]
    host_power: HostPowerPolicy
    grace_s: float
    log_format: str
    log_level: str
