"""A guest that changes its memory faster than it is copied: told, slowed down, forced or let be."""

from collections.abc import Iterator

import pytest
from virtrpc.v1 import migration_pb2 as pb
from virtrpc.v1.migration_pb2 import LiveMigrationOptions, MigrationPhase

from tests.instances import finished
from tests.lab.busy import busy_guest, outrun, slowly, stays
from tests.lab.guests import TIMEOUT_S, location
from tests.lab.hosts import Lab
from tests.lab.userfaults import allowed_userfaults
from tests.migrations import begun, ended, live_request, migrated, progress_of

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def guest(sharing_hosts: Lab) -> Iterator[str]:
    """A busy guest that all tests here share; each finds out where it is."""
    with busy_guest(sharing_hosts) as instance_id:
        yield instance_id


@pytest.mark.long
def test_auto_converge_slows_the_guest_down_until_it_is_over(
    sharing_hosts: Lab, guest: str
) -> None:
    here, there = location(sharing_hosts, guest)
    options = slowly(auto_converge=True)
    options.ClearField("max_downtime")
    request = live_request(guest, there, options=options)
    operation = begun(here, request)
    seen = progress_of(here, guest)
    assert seen[-1].phase == MigrationPhase.MIGRATION_PHASE_SUCCEEDED, seen[-1]
    assert max(progress.throttle_percent for progress in seen) > 0
    result = pb.LiveMigrationResult()
    finished(here.connection, operation).result.Unpack(result)
    assert not result.forced
    stays(there, here, guest)


def test_abort_of_what_does_not_end(sharing_hosts: Lab, guest: str) -> None:
    here, there = location(sharing_hosts, guest)
    with outrun(here, live_request(guest, there, options=slowly())) as operation:
        here.connection.migrations.AbortLiveMigration(
            pb.AbortLiveMigrationRequest(instance_id=guest), timeout=TIMEOUT_S
        )
    assert finished(here.connection, operation).error.reason == "MIGRATION_CANCELLED"
    stays(here, there, guest)


@pytest.mark.long
def test_timeout_aborts(sharing_hosts: Lab, guest: str) -> None:
    here, there = location(sharing_hosts, guest)
    options = slowly()
    options.timeout.FromSeconds(2)
    assert ended(here, live_request(guest, there, options=options)).error.reason == (
        "MIGRATION_TIMEOUT"
    )
    stays(here, there, guest)


@pytest.mark.long
def test_timeout_forces_by_a_pause(sharing_hosts: Lab, guest: str) -> None:
    here, there = location(sharing_hosts, guest)
    options = slowly(timeout_action=pb.MIGRATION_TIMEOUT_ACTION_FORCE_COMPLETE)
    options.timeout.FromSeconds(2)
    result = migrated(here, live_request(guest, there, options=options))
    assert (result.forced, result.post_copy) == (True, False)
    stays(there, here, guest)


@pytest.mark.long
def test_post_copy_ends_it(sharing_hosts: Lab, guest: str) -> None:
    here, there = location(sharing_hosts, guest)
    with (
        allowed_userfaults(),
        outrun(here, live_request(guest, there, options=slowly(post_copy=True))) as operation,
    ):
        forced = here.connection.migrations.ForceCompleteLiveMigration(
            pb.ForceCompleteLiveMigrationRequest(instance_id=guest), timeout=TIMEOUT_S
        )
        assert forced.method == pb.FORCE_COMPLETE_METHOD_POST_COPY
        ending = finished(here.connection, operation)
    result = pb.LiveMigrationResult()
    ending.result.Unpack(result)
    assert (result.forced, result.post_copy) == (True, True)
    stays(there, here, guest)


@pytest.mark.long
def test_memory_goes_over_by_several_connections(sharing_hosts: Lab, guest: str) -> None:
    here, there = location(sharing_hosts, guest)
    options = LiveMigrationOptions(parallel_connections=3, auto_converge=True)
    migrated(here, live_request(guest, there, options=options))
    stays(there, here, guest)
