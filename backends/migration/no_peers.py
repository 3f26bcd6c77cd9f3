"""What a backend has instead of peers where nobody gave it any, as in a test of its own."""

from contextlib import AbstractContextManager

from backends.contract import Peer
from backends.errors import PeerUnreachableError


class NoPeers:
    """A Peers without a network."""

    def at(self, uri: str) -> AbstractContextManager[Peer]:
        """Raises PeerUnreachableError."""
        raise PeerUnreachableError(f"{uri} cannot be reached: this backend has no peers")
