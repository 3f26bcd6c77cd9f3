"""`virtrpc host resources|inventory|nodes|overhead` and `instance import`."""

import json
from pathlib import Path

from virtrpc.v1 import host_pb2 as messages
from virtrpc.v1.instance_pb2 import Instance

from tests.clients.python.conftest import Cli
from tests.clients.python.scripted import ScriptedDaemon

WEB_1 = "3b241101-e2bb-4255-8caf-4136c566a962"


def resources(_request: object) -> messages.GetAvailableResourceResponse:
    return messages.GetAvailableResourceResponse(
        node_name="host-a",
        vcpus=8,
        vcpus_used=3,
        memory_mib=2048,
        memory_used_mib=1024,
        numa_cells=[
            messages.NumaCell(
                shared_cpus=range(8),
                memory_mib=2048,
                pages=[messages.PagePool(page_size_kib=4, total=10, used=3)],
            )
        ],
        pci_devices=[
            messages.PciDevice(
                address="0000:81:00.0",
                vendor_id="8086",
                product_id="1520",
                type=messages.PCI_DEVICE_TYPE_PHYSICAL_FUNCTION,
            )
        ],
    )


async def test_resources_are_shown_with_their_use(cli: Cli, daemon: ScriptedDaemon) -> None:
    daemon.answer("GetAvailableResource", resources)
    outcome = await cli("host", "resources", "--fresh", "--node", "host-a")
    assert "1 GiB used of 2 GiB" in outcome.out
    assert "3 used, 8 CPUs" in outcome.out
    assert "3/10 of 4 KiB" in outcome.out
    assert "8086:1520" in outcome.out
    (request,) = daemon.requests["GetAvailableResource"]
    assert (request.fresh, request.node_name) == (True, "host-a")
    document = json.loads((await cli("host", "resources", "-o", "json")).out)
    assert document["vcpus"] == 8


async def test_inventory_has_a_line_for_each_class(cli: Cli, daemon: ScriptedDaemon) -> None:
    inventory = messages.Inventory(total=8, reserved=1, allocation_ratio=1.5)
    provider = messages.ResourceProvider(
        name="host-a", inventories={"VCPU": inventory}, traits=["COMPUTE_NODE"]
    )
    response = messages.GetInventoryResponse(providers=[provider])
    daemon.answer("GetInventory", lambda _: response)
    lines = (await cli("host", "inventory")).out.splitlines()
    assert lines[1].split() == ["host-a", "VCPU", "8", "1", "1.5"]
    assert lines[-1].split() == ["traits", "COMPUTE_NODE"]


async def test_nodes_say_whether_they_are_within_reach(cli: Cli, daemon: ScriptedDaemon) -> None:
    nodes = [messages.Node(name="host-a", node_id=WEB_1, available=True)]
    daemon.answer("ListNodes", lambda _: messages.ListNodesResponse(nodes=nodes))
    assert (await cli("host", "nodes")).out.splitlines()[1].split() == [WEB_1, "host-a", "yes"]


async def test_overhead_of_a_flavor(cli: Cli, daemon: ScriptedDaemon) -> None:
    response = messages.EstimateInstanceOverheadResponse(memory_mib=100, disk_mib=16, vcpus=1)
    daemon.answer("EstimateInstanceOverhead", lambda _: response)
    words = ("--memory", "2G", "--vcpus", "2", "--extra-spec", "hw:boot_menu=true", "--vtpm")
    outcome = await cli("host", "overhead", *words)
    assert outcome.out.splitlines()[0].split() == ["memory", "100", "MiB"]
    (request,) = daemon.requests["EstimateInstanceOverhead"]
    assert (request.flavor.vcpus, request.flavor.memory_mib) == (2, 2048)
    assert dict(request.flavor.extra_specs) == {"hw:boot_menu": "true"}
    assert request.machine.vtpm


async def test_import_shows_the_differences(
    cli: Cli, daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    response = messages.ImportInstanceResponse(
        instance=Instance(instance_id=WEB_1, name="legacy"),
        differences=[
            messages.ImportDifference(
                kind=messages.IMPORT_DIFFERENCE_KIND_NOT_EXPRESSIBLE,
                path="devices/hostdev[0]",
                found="hostdev type=pci",
            ),
            messages.ImportDifference(
                kind=messages.IMPORT_DIFFERENCE_KIND_ADDED,
                path="devices/serial[0]/log",
                becomes="/log",
                at_next_start=True,
            ),
        ],
    )
    daemon.answer("ImportInstance", lambda _: response)
    spec = tmp_path / "spec.yaml"
    spec.write_text("name: legacy\nflavor: {vcpus: 2, memory_mib: 512}\n")
    outcome = await cli("instance", "import", WEB_1, "--file", str(spec), "--validate-only")
    lines = outcome.out.splitlines()
    assert lines[0] == "legacy would be adopted"
    assert lines[3].split()[:2] == ["not-expressible", "devices/hostdev[0]"]
    assert lines[4].endswith("at next start")
    (request,) = daemon.requests["ImportInstance"]
    assert (request.validate_only, request.spec.flavor.memory_mib) == (True, 512)
    await cli("instance", "import", WEB_1)
    assert not daemon.requests["ImportInstance"][1].HasField("spec")
