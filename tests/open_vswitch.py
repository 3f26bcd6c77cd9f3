"""Open vSwitch in a host of a test's own, with its datapath in user space."""

from pathlib import Path

from tests.libvirtd import LibvirtdHost

SWITCH = "ovs0"
_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


def start_open_vswitch(host: LibvirtdHost, folder: Path) -> None:
    """Starts it with one switch; it ends with the host."""
    run, database = folder / "ovs", folder / "ovs" / "conf.db"
    run.mkdir()
    Path("/run/openvswitch").mkdir(exist_ok=True)
    host.run("mount", "--bind", str(run), "/run/openvswitch")
    host.run("ovsdb-tool", "create", str(database), _SCHEMA)
    log = f"--log-file={run}/ovs.log"
    socket = "--remote=punix:/run/openvswitch/db.sock"
    host.run("ovsdb-server", str(database), socket, "--detach", "--no-chdir", "--pidfile", log)
    host.run("ovs-vsctl", "--no-wait", "init")
    host.run("ovs-vswitchd", "--detach", "--no-chdir", "--pidfile", log)
    netdev = ("--", "set", "bridge", SWITCH, "datapath_type=netdev")
    host.run("ovs-vsctl", "--timeout=20", "add-br", SWITCH, *netdev)
