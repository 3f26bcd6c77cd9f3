"""Facts of this host that every backend tells alike, read from the operating system."""

import platform
import socket
import time

import psutil
from virtrpc.v1 import host_pb2

_NS_PER_S = 1_000_000_000


def host_facts() -> host_pb2.Host:
    """Addresses, uptime, CPU time and load, as they are now."""
    host = host_pb2.Host(
        ip_address=_own_address(),
        ip_addresses=_addresses(),
        operating_system=_operating_system(),
        kernel_version=platform.release(),
    )
    booted_at = psutil.boot_time()
    host.booted_at.FromNanoseconds(int(booted_at * _NS_PER_S))
    host.uptime.FromNanoseconds(int((time.time() - booted_at) * _NS_PER_S))
    _add_cpu(host)
    return host


def host_name() -> str:
    """Name of the host, fully qualified where it is. May ask the name service."""
    name = socket.getfqdn()
    # Said where /etc/hosts has the host's name beside that of the loopback address.
    return socket.gethostname() if name.partition(".")[0] == "localhost" else name


def _add_cpu(host: host_pb2.Host) -> None:
    times = psutil.cpu_times()
    host.cpu_time.kernel_ns = int((times.system + times.irq + times.softirq) * _NS_PER_S)
    host.cpu_time.user_ns = int((times.user + times.nice) * _NS_PER_S)
    host.cpu_time.idle_ns = int(times.idle * _NS_PER_S)
    host.cpu_time.iowait_ns = int(times.iowait * _NS_PER_S)
    frequency = psutil.cpu_freq()
    host.cpu_mhz = int(frequency.current) if frequency else 0
    load = psutil.getloadavg()
    host.load.one_minute, host.load.five_minutes, host.load.fifteen_minutes = load


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def _addresses() -> list[str]:
    """Addresses of interfaces that are up, without loopback and link-local ones."""
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    return [
        address.address
        for name, addresses in sorted(psutil.net_if_addrs().items())
        for address in addresses
        if name in up
        and address.family in (socket.AF_INET, socket.AF_INET6)
        and not address.address.startswith(("127.", "::1", "fe80:", "169.254."))
    ]


def _own_address() -> str:
    """Source address of the default route; connecting a UDP socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address
