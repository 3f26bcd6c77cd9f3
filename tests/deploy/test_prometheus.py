"""The Prometheus files, judged by promtool; their metrics, held against a daemon's."""

import re
import subprocess
from pathlib import Path
from urllib.request import urlopen
from uuid import uuid4

import pytest
import yaml
from virtrpc.client import Client
from virtrpc.v1.instance_pb2 import SpawnInstanceRequest
from virtrpc.v1.spec_pb2 import Flavor, ImageSource, InstanceSpec

from deploy.demo.place import free_port
from tests.conftest import MakeDaemon

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
METRIC = re.compile(r"\b(?:virtrpc|grpc_server|libvirt)_\w+")


def promtool(*arguments: str, stdin: str | None = None) -> None:
    done = subprocess.run(
        ["promtool", *arguments],
        cwd=FOLDER,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def names_in_alerts() -> set[str]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    return {name for rule in rules for name in METRIC.findall(rule["expr"])}


@pytest.fixture
def scrape(make_daemon: MakeDaemon) -> str:
    """What a daemon with an instance exports."""
    port = free_port()
    daemon = make_daemon(f"--metrics=127.0.0.1:{port}").start()
    spec = InstanceSpec(flavor=Flavor(vcpus=1, memory_mib=64), image=ImageSource(image_id="guest"))
    with Client(daemon.address) as client:
        request = SpawnInstanceRequest(instance_id=str(uuid4()), spec=spec)
        client.wait(client.instances.SpawnInstance(request))
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        text: str = reply.read().decode()
    return text


def test_prometheus_takes_its_configuration() -> None:
    promtool("check", "config", "prometheus.yml")


def test_prometheus_takes_the_alerts() -> None:
    promtool("check", "rules", "alerts.yml")


def test_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", "alerts_test.yml")


def test_every_alert_is_tried() -> None:
    named = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    tried = (FOLDER / "alerts_test.yml").read_text(encoding="utf-8")
    alerts = [rule["alert"] for group in named for rule in group["rules"]]
    assert [alert for alert in alerts if f"alertname: {alert}" not in tried] == []


def test_metrics_follow_the_conventions(scrape: str) -> None:
    promtool("check", "metrics", stdin=scrape)


def test_alerts_ask_for_metrics_that_exist(scrape: str, names_in_alerts: set[str]) -> None:
    exported = set(re.findall(r"^\w+", scrape, re.MULTILINE))
    assert names_in_alerts
    assert names_in_alerts - exported == set()
