"""Read-only shares: neither libvirt's virtiofs devices nor QEMU's virtiofsd know of them.

So libvirt starts a program of ours instead, which mounts the directory read-only in a mount
namespace of its own, and there becomes virtiofsd: the kernel refuses what the guest would write.
What is mounted below the directory is not seen.
"""

import os
import shlex
import shutil
from pathlib import Path

NAME = "virtiofsd-read-only"
_TOOLS = ("unshare", "mount", "sed")
_PROGRAM = """\
#!/bin/sh -e
# Written by virtrpcd at every start; libvirt gives the directory as "-o source=DIR", its commas
# doubled.
if [ "$VIRTRPC_UNSHARED" != yes ]; then
    VIRTRPC_UNSHARED=yes exec unshare --mount --propagation private -- "$0" "$@"
fi
folder=
for word in "$@"; do
    case $word in source=*) folder=$(printf '%s\\n' "${{word#source=}}" | sed 's/,,/,/g') ;; esac
done
mount --bind -- "$folder" "$folder"
mount -o remount,bind,ro -- "$folder"
[ ! -w "$folder" ]
exec {virtiofsd} "$@"
"""


def write_program(path: Path, virtiofsd: str) -> None:
    """Writes the program, which everybody may run; `virtiofsd` is what it becomes."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(_PROGRAM.format(virtiofsd=shlex.quote(virtiofsd)), encoding="utf-8")
    fresh.chmod(0o755)
    fresh.rename(path)


def why_not(virtiofsd: str | None) -> str:
    """Why this host has no read-only shares; empty: it has."""
    if os.geteuid() != 0:
        return "only root can mount directories read-only"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if virtiofsd is None or missing:
        return f"not installed: {', '.join(missing) or 'virtiofsd'}"
    return ""
