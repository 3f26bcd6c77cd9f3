"""Packets between two real guests, counted on the wire before and after the rules."""

import pytest
from virtrpc.v1 import firewall_pb2 as pb

from tests.daemon import Connection, DaemonProcess
from tests.instances import TIMEOUT_S
from tests.network.conftest import Host, give
from tests.network.lan import Lan

pytestmark = pytest.mark.libvirt
Rule = pb.SecurityGroupRule
IN, OUT = pb.TRAFFIC_DIRECTION_INGRESS, pb.TRAFFIC_DIRECTION_EGRESS
ANY_OUT, PING = Rule(direction=OUT), Rule(direction=IN, icmp=pb.IcmpMatch())
TALK = Rule(direction=IN, tcp=pb.PortRange(first=8000))


def ping(source: Host, destination: Host, *options: str) -> bool:
    return source.shell.run(f"ping -c 2 -W 3 {' '.join(options)} {destination.ip}")


def test_packets_stop_when_their_rule_goes(
    lan: Lan, lan_connection: Connection, pair: tuple[Host, Host]
) -> None:
    a, b = pair
    assert sorted(give(lan_connection, ANY_OUT, PING)) == sorted(h.instance_id for h in pair)
    lan.count("asked", "icmp type echo-request", sender=a.tap, receiver=b.tap)
    assert ping(a, b)
    assert lan.counted("asked") == (2, 2)
    give(lan_connection, ANY_OUT)
    assert not ping(a, b)
    assert lan.counted("asked") == (4, 2)
    give(lan_connection, ANY_OUT, PING)
    assert ping(a, b)
    assert ping(b, a)
    assert lan.counted("asked") == (6, 4)


def test_spoofed_addresses_never_pass(
    lan: Lan, lan_connection: Connection, pair: tuple[Host, Host]
) -> None:
    a, b = pair
    give(lan_connection, ANY_OUT, PING)
    lan.count("ip", "ip saddr 192.0.2.99", sender=a.tap, receiver=b.tap)
    lan.count("mac", "ether saddr 52:54:00:00:01:99", sender=a.tap, receiver=b.tap)
    assert a.shell.run("ip addr add 192.0.2.99/24 dev eth0")
    assert not ping(a, b, "-I", "192.0.2.99")
    assert a.shell.run("ip addr del 192.0.2.99/24 dev eth0")
    sent, delivered = lan.counted("ip")
    assert (sent > 0, delivered) == (True, 0)
    mac = a.interface.mac_address
    assert a.shell.run("ip link set eth0 address 52:54:00:00:01:99")
    assert not ping(a, b)
    assert a.shell.run(f"ip link set eth0 address {mac}")
    sent, delivered = lan.counted("mac")
    assert (sent > 0, delivered) == (True, 0)
    assert ping(a, b)


def test_an_open_connection_survives_refreshes_and_ends_with_its_rule(
    lan: Lan, lan_connection: Connection, pair: tuple[Host, Host]
) -> None:
    a, b = pair
    give(lan_connection, ANY_OUT, TALK)
    lan.count("talk", "tcp dport 8000", sender=a.tap, receiver=b.tap)
    heard = b.shell.begin("nc -l -p 8000 &")
    b.shell.run("until grep -q :1F40 /proc/net/tcp*; do usleep 50000; done")  # it listens
    said = a.shell.begin(
        "(i=0; while [ $i -lt 90 ]; do i=$((i+1)); echo word-$i-; echo said-$i- >&2;"
        " usleep 100000; done) | nc -w 20 192.0.2.2 8000 &"
    )
    b.shell.printed("word-3-", since=heard)
    give(lan_connection, TALK, ANY_OUT, Rule(direction=IN, udp=pb.PortRange(first=53)))
    a.shell.printed("said-12-", since=said)
    b.shell.printed("word-12-", since=heard)
    give(lan_connection, ANY_OUT)
    before = lan.counted("talk")
    a.shell.printed("said-40-", since=said)
    after = lan.counted("talk")
    assert after[0] > before[0]
    assert after[1] == before[1]
    give(lan_connection, ANY_OUT, TALK)
    b.shell.printed("word-41-", since=heard)
    a.shell.run("killall nc")


def test_rules_outlive_the_daemon(
    lan: Lan, lan_daemon: DaemonProcess, lan_connection: Connection, pair: tuple[Host, Host]
) -> None:
    a, b = pair
    give(lan_connection, ANY_OUT)
    before = lan.table()
    lan_daemon.kill()
    assert lan.table() == before
    lan_daemon.start()
    assert sorted(lan.table().splitlines()) == sorted(before.splitlines())
    assert not ping(a, b)
    give(lan_connection, ANY_OUT, PING)
    assert ping(a, b)


def test_rules_in_the_kernel_are_ensured(
    lan: Lan, lan_connection: Connection, pair: tuple[Host, Host]
) -> None:
    a, b = pair
    give(lan_connection, ANY_OUT)
    table = next(line.split()[2] for line in lan.table().splitlines() if line.startswith("table"))
    lan.run("nft", "delete", "table", "bridge", table)
    assert ping(a, b)
    for host in pair:
        request = pb.EnsureFilteringRulesRequest(instance_id=host.instance_id)
        reply = lan_connection.firewall.EnsureFilteringRules(request, timeout=TIMEOUT_S)
        assert [found.host_device for found in reply.interfaces] == [host.tap]
        assert reply.interfaces[0].rule_count == 1
    assert not ping(a, b)
