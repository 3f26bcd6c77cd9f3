"""What libvirt's errors become, each raised by libvirt itself."""

import gc
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt
import pytest

from backends.errors import (
    ContractError,
    HypervisorError,
    InstanceNotFoundError,
    TimedOutError,
    UnreachableError,
    UnsupportedError,
    WrongStateError,
)
from backends.libvirt.errors import is_lost, translated, translating

UNKNOWN_ID = "0f9a5c1e-6d2b-4c8e-9d55-3b1f0a2c7e44"
PLAIN = (
    "<domain type='{type}'><name>plain</name><memory unit='MiB'>96</memory><vcpu>1</vcpu>"
    "<os><type>hvm</type></os><devices>{devices}</devices></domain>"
)
LUN_OF_A_FILE = (
    "<disk type='file' device='lun'><source file='/x'/><target dev='sda' bus='scsi'/></disk>"
)
GUEST_AGENT = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"


def raised_by(call: Callable[[], object]) -> libvirt.libvirtError:
    """The error that a call into libvirt ends with.

    libvirt forgets it when something of its own is freed before libvirt-python asks for
    it, as by a collection of what other tests left in cycles.
    """
    gc.disable()
    try:
        with pytest.raises(libvirt.libvirtError) as caught:
            call()
    finally:
        gc.enable()
    error: libvirt.libvirtError = caught.value
    return error


def of_unknown_domain(driver: libvirt.virConnect) -> object:
    return driver.lookupByUUIDString(UNKNOWN_ID)


def of_wrong_state(driver: libvirt.virConnect) -> object:
    domain = driver.defineXML(PLAIN.format(type="test", devices=""))
    try:
        return domain.managedSave()
    finally:
        domain.undefine()


def of_missing_function(driver: libvirt.virConnect) -> object:
    return driver.setKeepAlive(5, 3)


def of_unsupported_configuration(driver: libvirt.virConnect) -> object:
    return driver.defineXML(PLAIN.format(type="test", devices=LUN_OF_A_FILE))


def of_malformed_domain(driver: libvirt.virConnect) -> object:
    return driver.defineXML("<domain")


def of_unknown_flags(driver: libvirt.virConnect) -> object:
    return driver.lookupByName("test").undefineFlags(1 << 20)


def of_closed_connection(_driver: libvirt.virConnect) -> object:
    connection = libvirt.open("test:///default")
    connection.close()
    return connection.getType()


def of_refused_connection(_driver: libvirt.virConnect) -> object:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return libvirt.open(f"qemu+tcp://127.0.0.1:{bound.getsockname()[1]}/system")


def of_missing_socket(_driver: libvirt.virConnect) -> object:
    return libvirt.open("qemu:///system?socket=/nonexistent/libvirt-sock")


TABLE = [
    (of_unknown_domain, libvirt.VIR_ERR_NO_DOMAIN, InstanceNotFoundError),
    (of_wrong_state, libvirt.VIR_ERR_OPERATION_INVALID, WrongStateError),
    (of_missing_function, libvirt.VIR_ERR_NO_SUPPORT, UnsupportedError),
    (of_unsupported_configuration, libvirt.VIR_ERR_CONFIG_UNSUPPORTED, UnsupportedError),
    (of_malformed_domain, libvirt.VIR_ERR_XML_DETAIL, HypervisorError),
    (of_unknown_flags, libvirt.VIR_ERR_INVALID_ARG, HypervisorError),
    (of_closed_connection, libvirt.VIR_ERR_INVALID_CONN, UnreachableError),
    (of_refused_connection, libvirt.VIR_ERR_SYSTEM_ERROR, UnreachableError),
    (of_missing_socket, libvirt.VIR_ERR_SYSTEM_ERROR, UnreachableError),
]


@pytest.mark.parametrize(
    ("call", "code", "kind"), TABLE, ids=lambda value: getattr(value, "__name__", "")
)
def test_error_becomes_one_of_the_contract_by_its_code(
    call: Callable[[libvirt.virConnect], object],
    code: int,
    kind: type[ContractError],
    test_driver: libvirt.virConnect,
) -> None:
    error = raised_by(lambda: call(test_driver))
    told = translated(error, UNKNOWN_ID)
    assert error.get_error_code() == code
    assert type(told) is kind
    assert is_lost(error) == (kind is UnreachableError)


def test_error_without_a_better_name_tells_libvirts_code(test_driver: libvirt.virConnect) -> None:
    told = translated(raised_by(lambda: of_malformed_domain(test_driver)))
    assert told.metadata == {"libvirt_code": str(libvirt.VIR_ERR_XML_DETAIL)}


def test_lookup_by_name_that_fails_names_no_instance(test_driver: libvirt.virConnect) -> None:
    error = raised_by(lambda: test_driver.lookupByName("nobody"))
    assert type(translated(error)) is HypervisorError


def test_call_inside_raises_the_error_of_the_contract(test_driver: libvirt.virConnect) -> None:
    with pytest.raises(InstanceNotFoundError) as caught, translating(UNKNOWN_ID):
        of_unknown_domain(test_driver)
    assert isinstance(caught.value.__cause__, libvirt.libvirtError)


@contextmanager
def peer(path: Path, *, answer: bytes) -> Iterator[str]:
    """The address of a server that reads a call, answers this and hangs up."""

    def serve(listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        with accepted:
            accepted.recv(4096)
            accepted.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"qemu:///system?socket={path}"
        thread.join()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["eof", "http"])
def test_peer_that_is_no_libvirtd_is_out_of_reach(
    answer: bytes, short_folder: Callable[[], Path], test_driver: libvirt.virConnect
) -> None:
    with peer(short_folder() / "sock", answer=answer) as uri:
        error = raised_by(lambda: libvirt.open(uri))
    assert type(translated(error)) is UnreachableError


@pytest.mark.libvirt
def test_guest_agent_that_is_silent_has_timed_out(qemu_driver: libvirt.virConnect) -> None:
    domain = qemu_driver.createXML(PLAIN.format(type="qemu", devices=GUEST_AGENT))
    try:
        error = raised_by(domain.getTime)
    finally:
        domain.destroy()
    assert error.get_error_code() == libvirt.VIR_ERR_AGENT_UNRESPONSIVE
    assert type(translated(error)) is TimedOutError
