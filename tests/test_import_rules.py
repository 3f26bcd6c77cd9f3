"""Who may import whom: the rules hold in the tree, and they catch who breaks them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("service", "backends", "clients/python/virtrpc")


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    """The verdict on a tree, whatever is installed."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": f"{tree}:{tree / 'clients/python'}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the rules are about."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    return tmp_path


def test_the_tree_keeps_the_rules() -> None:
    verdict = lint_imports(ROOT)
    assert verdict.returncode == 0, verdict.stdout
    assert "0 broken" in verdict.stdout


@pytest.mark.parametrize(
    ("module", "statement", "rule"),
    [
        ("service/planted.py", "import libvirt", "libvirt is known to its adapter alone"),
        ("backends/fake/planted.py", "import libvirt", "libvirt is known to its adapter alone"),
        ("backends/planted.py", "def late():\n    import libvirt", "libvirt is known to its"),
        ("backends/libvirt/planted.py", "import grpc", "backends know no grpc"),
        ("backends/planted.py", "from virtrpc.client import Client", "backends know no grpc"),
        ("backends/fake/planted.py", "from service import truth", "backends know no service"),
        ("clients/python/virtrpc/planted.py", "import service.truth", "backends know no service"),
        ("service/planted.py", "import backends.fake.host", "the service knows backends by"),
    ],
)
def test_a_planted_import_is_caught(tree: Path, module: str, statement: str, rule: str) -> None:
    (tree / module).write_text(f"{statement}\n", encoding="utf-8")
    verdict = lint_imports(tree)
    assert verdict.returncode == 1, verdict.stdout
    broken = [line for line in verdict.stdout.splitlines() if " BROKEN" in line]
    assert any(line.startswith(rule) for line in broken), verdict.stdout
    assert "planted" in verdict.stdout
