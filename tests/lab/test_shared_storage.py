"""Guests go from host to host, and their files stay where both see them."""

import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import grpc
import pytest
from virtrpc.v1 import console_pb2, host_pb2
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.event_pb2 import EVENT_TYPE_MIGRATION_COMPLETED
from virtrpc.v1.instance_pb2 import GetInstanceRequest, PauseInstanceRequest
from virtrpc.v1.migration_pb2 import LiveMigrationOptions
from virtrpc.v1.spec_pb2 import FirmwareType

from backends.libvirt.xml.element import parse
from tests.attached import Attached
from tests.cold import cold_request, confirm, finish_request, finished_at, released, revert
from tests.events_seen import cursor_now, events_after
from tests.instances import console_until, destroyed, finished, small_spec, spawned
from tests.lab.guests import TIMEOUT_S, counting, goes_on, location
from tests.lab.hosts import Lab
from tests.migrations import ended, instance_at, live_request, migrated
from tests.refusals import refused

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def guest(sharing_hosts: Lab) -> Iterator[str]:
    """A counting guest that all tests here share; each finds out where it is."""
    with counting(sharing_hosts, "counter") as instance_id:
        yield instance_id


@pytest.mark.parametrize("trips", [1, pytest.param(10, marks=pytest.mark.long)])
def test_counter_misses_no_number_there_and_back(
    sharing_hosts: Lab, guest: str, trips: int
) -> None:
    for _ in range(2 * trips):
        here, there = location(sharing_hosts, guest)
        result = migrated(here, live_request(guest, there))
        assert not result.disks_copied
        goes_on(there, guest)
        assert here.libvirtd.guests == []


def test_source_says_where_a_guest_went(sharing_hosts: Lab, guest: str) -> None:
    here, there = location(sharing_hosts, guest)
    follow = console_pb2.StreamConsoleOutputRequest(instance_id=guest, offset=0, follow=True)
    stream = here.connection.consoles.StreamConsoleOutput(follow, timeout=TIMEOUT_S)
    log_id = next(stream).log_id
    cursors = {host.uri: cursor_now(host.connection) for host in (here, there)}
    with Attached(here.connection, guest) as attached:
        attached.opened()
        request = live_request(guest, there)
        migrated(here, request)
        *_, parted = attached.responses
    *_, last = stream
    for moved in (last.moved, parted.moved):
        assert (moved.host_uri, moved.migration_id) == (there.uri, request.migration_id)
    reads_on = console_pb2.GetConsoleOutputRequest(
        instance_id=guest, offset=last.moved.offset, log_id=log_id
    )
    assert not there.connection.consoles.GetConsoleOutput(reads_on, timeout=TIMEOUT_S).expired_bytes
    read, pause = GetInstanceRequest(instance_id=guest), PauseInstanceRequest(instance_id=guest)
    for ask in (
        partial(here.connection.instances.GetInstance, read),
        partial(here.connection.instances.PauseInstance, pause),
        partial(here.connection.consoles.GetConsoleOutput, reads_on),
    ):
        with refused(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND") as refusal:
            ask(timeout=TIMEOUT_S)
        assert refusal.metadata["host_uri"] == there.uri
    for host, other in ((here, there.uri), (there, "host-")):
        *_, told = events_after(
            host.connection,
            cursors[host.uri],
            until=lambda event: event.type == EVENT_TYPE_MIGRATION_COMPLETED,
        )
        assert told.instance_id == guest
        assert told.detail.startswith(other)


def test_destroy_where_it_was_leaves_the_files_to_the_host_that_has_it(
    sharing_hosts: Lab, guest: str
) -> None:
    here, there = location(sharing_hosts, guest)
    migrated(here, live_request(guest, there))
    destroyed(here.connection, guest)
    goes_on(there, guest)
    migrated(there, live_request(guest, here))
    goes_on(here, guest)


def test_mark_of_the_one_host_is_seen_by_the_other(sharing_hosts: Lab, guest: str) -> None:
    here, there = location(sharing_hosts, guest)
    ask = pb.CheckSharedStorageLocalRequest(instance_id=guest)
    mark = here.connection.migrations.CheckSharedStorageLocal(ask, timeout=TIMEOUT_S).mark
    look = pb.CheckSharedStorageRemoteRequest(instance_id=guest, mark=mark)
    assert there.connection.migrations.CheckSharedStorageRemote(look, timeout=TIMEOUT_S).shared
    clean = pb.CleanupSharedStorageCheckRequest(instance_id=guest, mark=mark)
    here.connection.migrations.CleanupSharedStorageCheck(clean, timeout=TIMEOUT_S)
    assert not there.connection.migrations.CheckSharedStorageRemote(look, timeout=TIMEOUT_S).shared


def test_transfer_is_encrypted_where_it_is_asked_for(sharing_hosts: Lab, guest: str) -> None:
    here, there = location(sharing_hosts, guest)
    options = LiveMigrationOptions(tls=pb.MIGRATION_TLS_REQUIRED)
    migrated(here, live_request(guest, there, options=options))
    goes_on(there, guest)
    key = there.libvirtd.folder / "pki" / "client-key.pem"
    hidden = key.rename(key.with_suffix(".hidden"))
    broken = ended(there, live_request(guest, here, options=options)).error
    hidden.rename(key)
    assert broken.reason == "MIGRATION_FAILED"
    goes_on(there, guest)


def test_maintenance_moves_every_guest_away(sharing_hosts: Lab, guest: str) -> None:
    here, there = location(sharing_hosts, guest)
    request = host_pb2.SetMaintenanceModeRequest(
        maintenance=True, destination_uris=[there.uri], reason="new disks"
    )
    operation = here.connection.hosts.SetMaintenanceMode(request, timeout=TIMEOUT_S)
    reply = host_pb2.SetMaintenanceModeResponse()
    finished(here.connection, operation).result.Unpack(reply)
    assert reply.evacuated
    (outcome,) = reply.instances
    assert (outcome.instance_id, outcome.destination_uri) == (guest, there.uri)
    assert outcome.outcome == host_pb2.MAINTENANCE_OUTCOME_MIGRATED
    goes_on(there, guest)
    back = ended(there, live_request(guest, here)).error
    assert back.reason == "PEER_REFUSED"
    request = host_pb2.SetMaintenanceModeRequest(maintenance=False)
    finished(here.connection, here.connection.hosts.SetMaintenanceMode(request, timeout=TIMEOUT_S))


def test_copy_onto_itself_is_refused(sharing_hosts: Lab, guest: str) -> None:
    here, there = location(sharing_hosts, guest)
    options = LiveMigrationOptions(storage=pb.MIGRATION_STORAGE_COPY)
    assert ended(here, live_request(guest, there, options=options)).error.reason == "STORAGE_SHARED"
    assert instance_at(there, guest) is None
    goes_on(here, guest)


def test_destination_tells_everything_in_the_way_at_once(sharing_hosts: Lab) -> None:
    there = sharing_hosts.hosts[1]
    source = pb.MigrationSource(
        hypervisor_type="Xen",
        machine_type="pc-q35-99.0",
        boot_image_ids=["no-such-kernel"],
        guest_cpu=pb.ComparedCpu(architecture="x86_64", model="Icelake-Server"),
    )
    source.flavor.vcpus, source.flavor.memory_mib = 1, 1 << 24
    request = pb.CheckDestinationRequest(instance_id=str(uuid.uuid4()), source=source)
    answer = there.connection.migrations.CheckDestination(request, timeout=TIMEOUT_S)
    assert {blocker.reason for blocker in answer.blockers} == {
        "HYPERVISOR_MISMATCH",
        "MACHINE_TYPE_UNSUPPORTED",
        "IMAGE_NOT_FOUND",
        "CPU_INCOMPATIBLE",
        "NO_ROOM",
    }
    assert answer.check.host_name == "host-b"


def test_guest_that_is_off_goes_without_its_files(sharing_hosts: Lab, guest: str) -> None:
    """A destroy there leaves them, for until it is confirmed they are the source's."""
    here, there = location(sharing_hosts, guest)
    data = released(here.connection, cold_request(guest, to=there.uri)).data
    assert data.storage == pb.MIGRATION_STORAGE_SHARED
    finished_at(there.connection, finish_request(data))
    destroyed(there.connection, guest)
    revert(here.connection, data)
    result = released(here.connection, cold_request(guest, to=there.uri))
    assert not result.transferred_bytes
    finished_at(there.connection, finish_request(result.data))
    destroyed(here.connection, guest)
    assert instance_at(here, guest) is None
    assert confirm(here.connection, result.data).already_confirmed
    destroyed(here.connection, guest)
    end = result.data.console_offset
    console_until(there.connection, guest, b"count 3", offset=end)


def test_firmware_variables_stay_and_vtpm_goes(sharing_hosts: Lab) -> None:
    """A host that has not the instance, or not for good, leaves the variables alone."""
    here, there = sharing_hosts.hosts
    spec = small_spec(backend="libvirt")
    spec.machine.firmware, spec.machine.vtpm = FirmwareType.FIRMWARE_TYPE_UEFI, True
    with spawned(here.connection, spec) as instance_id:
        variables = Path(parse(here.virsh("dumpxml", instance_id)).findtext("os/nvram", ""))
        assert variables.is_file()
        data = released(here.connection, cold_request(instance_id, to=there.uri)).data
        finished_at(there.connection, finish_request(data, power_on=False))
        destroyed(there.connection, instance_id)
        assert variables.exists()
        revert(here.connection, data)
        data = released(here.connection, cold_request(instance_id, to=there.uri)).data
        tpms = [host.libvirtd.folder / "lib/swtpm" / instance_id for host in sharing_hosts.hosts]
        sent = (tpms[0] / "tpm2/tpm2-00.permall").read_bytes()
        finished_at(there.connection, finish_request(data, power_on=False))
        confirm(here.connection, data)
        assert variables.exists()
        assert not tpms[0].exists()
        assert (tpms[1] / "tpm2/tpm2-00.permall").read_bytes() == sent
        destroyed(there.connection, instance_id)
        assert not variables.exists()
