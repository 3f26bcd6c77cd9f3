"""Flags are stronger than the environment, that than the TOML file, that than the defaults."""

import subprocess
import sys
from collections.abc import Mapping
from ipaddress import ip_network
from operator import attrgetter
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from service.roles import IdentityPattern
from service.settings import ENVIRONMENT_PREFIX, Settings, with_settings
from service.tls_files import TlsFiles
from tests.conftest import MakeDaemon


def patterns(*texts: str) -> tuple[IdentityPattern, ...]:
    return tuple(map(IdentityPattern.parse, texts))


# Flag → (a value as text, a value as TOML, the attribute of Settings, what both mean).
EVERY_SETTING: Mapping[str, tuple[str, str, str, object]] = {
    "backend": ("fake", '"fake"', "backend", "fake"),
    "state-dir": ("/tmp/state", '"/tmp/state"', "state_dir", Path("/tmp/state")),
    "image-dir": ("/tmp/images", '"/tmp/images"', "image_dir", Path("/tmp/images")),
    "instance-dir": ("/tmp/i", '"/tmp/i"', "instance_dir", Path("/tmp/i")),
    "hypervisor-uri": (
        "qemu+tcp://h/system",
        '"qemu+tcp://h/system"',
        "hypervisor_uri",
        "qemu+tcp://h/system",
    ),
    "migration-uri": ("tcp://192.0.2.7", '"tcp://192.0.2.7"', "migration_uri", "tcp://192.0.2.7"),
    "peer-network": (
        "192.0.2.0/24",
        '["192.0.2.0/24"]',
        "peer_networks",
        (ip_network("192.0.2.0/24"),),
    ),
    "listen": ("127.0.0.1:1", '["127.0.0.1:1"]', "listen", ("127.0.0.1:1",)),
    "role-viewer": ("*.a.example", '["*.a.example"]', "roles.viewers", patterns("*.a.example")),
    "role-operator": (
        "spiffe://a/*",
        '["spiffe://a/*"]',
        "roles.operators",
        patterns("spiffe://a/*"),
    ),
    "role-migrator": (
        "spiffe://a/*",
        '["spiffe://a/*"]',
        "roles.migrators",
        patterns("spiffe://a/*"),
    ),
    "role-admin": ("spiffe://a/b", '["spiffe://a/b"]', "roles.admins", patterns("spiffe://a/b")),
    "connection-max-age": ("60", "60.0", "connection_max_age_s", 60.0),
    "http": ("127.0.0.1:3", '"127.0.0.1:3"', "http", "127.0.0.1:3"),
    "http-url": ("https://a.example", '"https://a.example"', "http_url", "https://a.example"),
    "web-dir": ("/tmp/web", '"/tmp/web"', "web_dir", Path("/tmp/web")),
    "recording-max-age": ("60", "60.0", "recording_max_age_s", 60.0),
    "recording-max-size": ("1000", "1000", "recording_max_bytes", 1000),
    "metrics": ("127.0.0.1:2", '"127.0.0.1:2"', "metrics", "127.0.0.1:2"),
    "libvirt-uri": ("test:///default", '"test:///default"', "libvirt_uri", "test:///default"),
    "virt-type": ("qemu", '"qemu"', "virt_type", "qemu"),
    "fake-faults": ("*=fail", '"*=fail"', "fake_faults", "*=fail"),
    "fake-lacks": ("uefi", '"uefi"', "fake_lacks", "uefi"),
    "share-dir": ("/tmp/s", '["/tmp/s"]', "share_dirs", (Path("/tmp/s"),)),
    "sample-interval": ("2.5", "2.5", "sample_interval_s", 2.5),
    "image-source-dir": ("/tmp/a", '["/tmp/a"]', "images.source_dirs", (Path("/tmp/a"),)),
    "image-url-prefix": (
        "https://a.example/",
        '["https://a.example/"]',
        "images.url_prefixes",
        ("https://a.example/",),
    ),
    "image-max-size": ("1000", "1000", "images.max_size_bytes", 1000),
    "image-max-virtual-size": ("2000", "2000", "images.max_virtual_size_bytes", 2000),
    "image-max-unused-age": ("60", "60", "images.max_unused_age_s", 60.0),
    "image-cache-interval": ("5", "5", "image_cache_interval_s", 5.0),
    "rollback-patience": ("60", "60.0", "rollback_patience_s", 60.0),
    "rescue-timeout": ("60", "60.0", "rescue_timeout_s", 60.0),
    "volume-dir": ("/tmp/v", '["/tmp/v"]', "volumes.dirs", (Path("/tmp/v"),)),
    "reclaim-after": ("60", "60.0", "reclaim_after_s", 60.0),
    "cpu-allocation-ratio": ("4", "4", "inventory.cpu_ratio", 4.0),
    "memory-allocation-ratio": ("1.5", "1.5", "inventory.memory_ratio", 1.5),
    "disk-allocation-ratio": ("2", "2.0", "inventory.disk_ratio", 2.0),
    "reserved-cpus": ("1", "1", "inventory.reserved_cpus", 1),
    "reserved-memory": ("1024", "1024", "inventory.reserved_memory_mib", 1024),
    "reserved-disk": ("10", "10", "inventory.reserved_disk_gib", 10),
    "dedicated-cpus": ("2-4,^3", '"2-4,^3"', "dedicated_cpus", frozenset({2, 4})),
    "pci-passthrough": ("8086:*", '["8086:*"]', "pci_passthrough", ("8086:*",)),
    "host-shutdown-command": ("halt", '["halt"]', "host_power.shutdown_command", ("halt",)),
    "host-reboot-command": ("again", '["again"]', "host_power.reboot_command", ("again",)),
    "grace": ("3", "3", "grace_s", 3.0),
    "log-format": ("json", '"json"', "log_format", "json"),
    "log-level": ("debug", '"debug"', "log_level", "debug"),
}


# Given together, or none of them.
TLS_FILES = {"tls-cert": "/tmp/c", "tls-key": "/tmp/k", "tls-ca": "/tmp/a"}
# Flags without a value.
SWITCHES = {"--insecure", "--allow-host-power", "--migration-tls", "--resume-instances"}


def run(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> tuple[Result, Settings | None]:
    """What the command makes of flags and environment."""
    got: list[Settings] = []
    command = click.command(context_settings={"auto_envvar_prefix": ENVIRONMENT_PREFIX})(
        with_settings(got.append)
    )
    result = CliRunner().invoke(command, arguments, env=dict(environment or {}))
    return result, got[0] if got else None


def settings(*arguments: str, environment: Mapping[str, str] | None = None) -> Settings:
    result, merged = run(*arguments, environment=environment)
    assert merged is not None, result.output
    return merged


def variable(flag: str) -> str:
    return f"VIRTRPC_{flag.replace('-', '_').upper()}"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "virtrpcd.toml"


def test_every_setting_is_tried_here() -> None:
    result, _ = run("--help")
    flags = {word for word in result.output.split() if word.startswith("--")}
    named = {f"--{name}" for name in (*EVERY_SETTING, *TLS_FILES)}
    assert flags == named | SWITCHES | {"--config", "--help"}


def test_certificate_is_three_files_by_flag_environment_or_file(config: Path) -> None:
    files = TlsFiles(Path("/tmp/c"), Path("/tmp/k"), Path("/tmp/a"))
    assert settings().tls is None
    assert settings(*(f"--{flag}={file}" for flag, file in TLS_FILES.items())).tls == files
    environment = {variable(flag): file for flag, file in TLS_FILES.items()}
    assert settings(environment=environment).tls == files
    config.write_text("".join(f'{flag} = "{file}"\n' for flag, file in TLS_FILES.items()))
    assert settings("--config", str(config)).tls == files


@pytest.mark.parametrize("left_out", TLS_FILES)
def test_certificate_without_one_of_its_files_is_refused(left_out: str) -> None:
    given = (f"--{flag}={file}" for flag, file in TLS_FILES.items() if flag != left_out)
    result, merged = run(*given)
    assert (merged, result.exit_code) == (None, 2)
    assert f"--{left_out}" in result.output


@pytest.mark.parametrize("flag", EVERY_SETTING)
def test_setting_can_be_given_as_a_flag(flag: str) -> None:
    text, _, attribute, value = EVERY_SETTING[flag]
    assert attrgetter(attribute)(settings(f"--{flag}", text)) == value


@pytest.mark.parametrize("flag", EVERY_SETTING)
def test_setting_can_be_given_in_the_environment(flag: str) -> None:
    text, _, attribute, value = EVERY_SETTING[flag]
    assert attrgetter(attribute)(settings(environment={variable(flag): text})) == value


@pytest.mark.parametrize("flag", EVERY_SETTING)
def test_setting_can_be_given_in_the_file_under_its_flag_s_name(flag: str, config: Path) -> None:
    _, toml, attribute, value = EVERY_SETTING[flag]
    config.write_text(f"{flag} = {toml}\n")
    assert attrgetter(attribute)(settings("--config", str(config))) == value
    config.write_text(f"{flag.replace('-', '_')} = {toml}\n")
    assert attrgetter(attribute)(settings("--config", str(config))) == value


def test_flag_beats_environment_beats_file_beats_default(config: Path) -> None:
    config.write_text('backend = "in-file"\nmetrics = "127.0.0.1:1"\nlog-level = "error"\n')
    merged = settings(
        *("--config", str(config), "--backend", "in-flag"),
        environment={"VIRTRPC_BACKEND": "in-environment", "VIRTRPC_METRICS": "127.0.0.1:2"},
    )
    assert merged.backend == "in-flag"
    assert merged.metrics == "127.0.0.1:2"
    assert merged.log_level == "error"
    assert merged.virt_type == "auto"


def test_file_can_be_named_in_the_environment(config: Path) -> None:
    config.write_text('backend = "fake"\n')
    assert settings(environment={"VIRTRPC_CONFIG": str(config)}).backend == "fake"


def test_several_addresses_are_separated_by_blanks_in_the_environment() -> None:
    merged = settings(environment={"VIRTRPC_LISTEN": "unix:/tmp/a 127.0.0.1:1"})
    assert merged.listen == ("unix:/tmp/a", "127.0.0.1:1")


def test_image_store_is_below_the_state_directory_unless_given() -> None:
    assert settings("--state-dir", "/srv/state").image_dir == Path("/srv/state/images")


@pytest.mark.parametrize(
    "line",
    [
        'lisen = "127.0.0.1:1"',
        'grace = "soon"',
        "grace = -1",
        'virt-type = "xen"',
        'listen = "127.0.0.1:1"',
        'role-admin = ["spiffe://"]',
        'role-viewer = ["a b"]',
        'role-operator = "spiffe://a/b"',
        'tls-cert = ["/tmp/c"]',
        'insecure = "perhaps"',
        "[daemon]\nbackend = 'fake'",
        "[listen]\nunix = '/tmp/a'",
        "listen = []",
        'state-dir = ""',
        'image-dir = ""',
        'image-source-dir = [""]',
        "state-dir = {}",
        "backend = 2026-01-01",
        "grace = nan",
        'config = "another.toml"',
    ],
)
def test_file_with_a_mistake_is_refused_and_the_mistake_named(line: str, config: Path) -> None:
    config.write_text(f"{line}\n")
    result, merged = run("--config", str(config))
    assert merged is None
    assert result.exit_code == 2, result.output
    assert line.split(maxsplit=1)[0].strip("[]") in result.output


def test_file_that_is_not_toml_is_refused(config: Path) -> None:
    config.write_text("backend = [")
    result, merged = run("--config", str(config))
    assert (merged, result.exit_code) == (None, 2)
    assert str(config) in result.output


def test_file_that_is_not_utf_8_is_refused(config: Path) -> None:
    config.write_bytes(b"\xff\xfe")
    result, merged = run("--config", str(config))
    assert (merged, result.exit_code) == (None, 2)
    assert str(config) in result.output


def test_number_in_the_file_is_what_the_flag_would_make_of_it(config: Path) -> None:
    config.write_text("state-dir = 5\n")
    assert settings("--config", str(config)).state_dir == Path("5")


def test_empty_path_is_not_the_folder_that_we_happen_to_be_in() -> None:
    result, merged = run("--state-dir", "")
    assert (merged, result.exit_code) == (None, 2)


def test_missing_file_is_refused(config: Path) -> None:
    result, merged = run("--config", str(config))
    assert (merged, result.exit_code) == (None, 2)
    assert str(config) in result.output


def test_unknown_flag_is_refused() -> None:
    result, merged = run("--backnd", "fake")
    assert (merged, result.exit_code) == (None, 2)


def test_daemon_takes_its_settings_from_the_environment(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(environment={"VIRTRPC_LOG_FORMAT": "json"}).start()
    assert daemon.log().startswith("{")


def test_reading_them_does_not_import_grpc() -> None:
    """It reads its own settings when it is imported, which the daemon makes after these."""
    program = "import service.main, sys; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
