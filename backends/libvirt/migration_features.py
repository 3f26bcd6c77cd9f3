"""What of live migration this host can do, found out at the start."""

from pathlib import Path

_USERFAULTFD = Path("/proc/sys/vm/unprivileged_userfaultfd")
# Where libvirt looks for QEMU's certificates unless qemu.conf says otherwise.
_CERTIFICATE = Path("/etc/pki/qemu/server-cert.pem")


def migration_features(lacks: str) -> dict[str, str]:
    """Features by name → why they are missing; `lacks`: why all of them are."""
    features = {
        "migration_shared_storage": "",
        "migration_block": "",
        "migration_auto_converge": "",
        "migration_parallel_connections": "",
        "migration_post_copy": post_copy_lacks(),
        "migration_tls": tls_lacks(),
    }
    found = {name: lacks or why for name, why in features.items()}
    return {**found, "migration_same_host": "a libvirtd has each name once"}


def post_copy_lacks() -> str:
    """Why guests cannot be taken over by post-copy here; empty: they can.

    QEMU, which is not root, must be told of the pages that it lacks (userfaultfd(2)).
    """
    try:
        allowed = _USERFAULTFD.read_text(encoding="ascii").strip() == "1"
    except OSError:
        return "the kernel has no userfaultfd"
    return "" if allowed else "vm.unprivileged_userfaultfd is 0"


def tls_lacks() -> str:
    """Why memory cannot be received encrypted here; empty: it can."""
    return "" if _CERTIFICATE.exists() else f"there is no {_CERTIFICATE}"
