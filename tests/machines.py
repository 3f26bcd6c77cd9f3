"""Running QEMUs, as the kernel has them."""

from pathlib import Path


def qemu_pids(word: str, *, program: str = "qemu-system") -> list[int]:
    """Processes of a program that begins so, with `word` in their command line.

    The word is an instance's id or a daemon's folder. Tests look hundreds of times, so only
    processes of that name are looked at closely; a zombie has no command line.
    """
    folders = (folder for folder in Path("/proc").iterdir() if folder.name.isdigit())
    return [int(folder.name) for folder in folders if _is(folder, program, word)]


def _is(folder: Path, program: str, word: str) -> bool:
    try:
        named = (folder / "comm").read_bytes().startswith(program.encode())
        return named and word.encode() in (folder / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return False
