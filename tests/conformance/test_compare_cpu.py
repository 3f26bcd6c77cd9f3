"""A guest's or another host's CPU beside this host's."""

import grpc
import pytest
from virtrpc.v1 import migration_pb2 as pb

from tests.daemon import Connection
from tests.refusals import refused

TIMEOUT_S = 20


def compared(connection: Connection, cpu: pb.ComparedCpu, *, guest: bool) -> pb.CompareCpuResponse:
    request = pb.CompareCpuRequest(cpu=cpu, guest=guest)
    return connection.migrations.CompareCpu(request, timeout=TIMEOUT_S)


def own_cpu(connection: Connection) -> pb.ComparedCpu:
    return compared(connection, pb.ComparedCpu(architecture="x86_64"), guest=False).host_cpu


def test_own_cpu_is_identical(connection: Connection) -> None:
    answer = compared(connection, own_cpu(connection), guest=False)
    assert answer.comparison == pb.CPU_COMPARISON_IDENTICAL
    assert not answer.missing_features


@pytest.mark.parametrize("guest", [True, False])
def test_feature_that_nobody_has_is_named(connection: Connection, guest: bool) -> None:
    """One of a processor that is built no more; emulation lacks it too."""
    cpu = own_cpu(connection) if not guest else pb.ComparedCpu(architecture="x86_64")
    cpu.features.append("avx512-4vnniw")
    answer = compared(connection, cpu, guest=guest)
    assert answer.comparison == pb.CPU_COMPARISON_INCOMPATIBLE
    assert "avx512-4vnniw" in answer.missing_features


def test_other_architecture_is_incompatible(connection: Connection) -> None:
    answer = compared(connection, pb.ComparedCpu(architecture="s390x"), guest=True)
    assert answer.comparison == pb.CPU_COMPARISON_INCOMPATIBLE


def test_unknown_model_is_refused(connection: Connection) -> None:
    cpu = pb.ComparedCpu(architecture="x86_64", model="No-Such-Model")
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_CPU_MODEL"):
        compared(connection, cpu, guest=True)
