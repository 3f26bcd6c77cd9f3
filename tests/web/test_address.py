"""By which address browsers are sent to the web console."""

import socket

import pytest
from virtrpc.address import Address

from service.web.server import _base


@pytest.mark.parametrize(
    ("listens", "base"),
    [
        ("127.0.0.1:9178", "http://127.0.0.1:9178"),
        ("[::1]:9178", "http://[::1]:9178"),
        ("grpcs://host-a:9178", "https://host-a:9178"),
        ("0.0.0.0:9178", f"http://{socket.gethostname()}:9178"),
        ("grpcs://[::]:9178", f"https://{socket.gethostname()}:9178"),
    ],
)
def test_links_name_an_address_that_can_be_opened(listens: str, base: str) -> None:
    assert _base(Address.parse(listens), 9178) == base
