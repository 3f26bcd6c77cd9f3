"""Where browsers reach the web console."""

from urllib.parse import urlsplit

from virtrpc.v1 import console_pb2 as pb
from virtrpc.v1.console_pb2 import ConsoleType

PAGES = {
    pb.CONSOLE_TYPE_VNC: "vnc",
    pb.CONSOLE_TYPE_SERIAL: "serial",
    pb.CONSOLE_TYPE_WEB: "serial",
}
"""Names of the pages that show consoles, by their kinds."""
SOCKET_PATH = "/console/socket"


class WebAddress:
    """Addresses of pages and of the WebSocket behind them; empty until it is served."""

    def __init__(self) -> None:
        self.base = ""
        """E.g. "http://127.0.0.1:9178", without a slash at its end; empty: not served."""
        self.has_pages = False
        """Pages are served, not only the WebSocket."""

    @property
    def host(self) -> str:
        """Name or address in it."""
        return urlsplit(self.base).hostname or ""

    @property
    def port(self) -> int:
        """Port in it; 0: not served."""
        split = urlsplit(self.base)
        standard = {"https": 443, "http": 80}.get(split.scheme, 0)
        return split.port or standard

    @property
    def socket_path(self) -> str:
        """Path of the WebSocket, as browsers see it."""
        return urlsplit(self.base).path + SOCKET_PATH

    @property
    def origin(self) -> str:
        """What browsers call the origin of the pages (RFC 6454)."""
        split = urlsplit(self.base)
        return f"{split.scheme}://{split.netloc}"

    def page(self, kind: "ConsoleType.ValueType", token: str) -> str:
        """Address of the page of a console, with the token in its fragment, which browsers
        send to nobody; empty where there is none.
        """
        if not self.has_pages or kind not in PAGES:
            return ""
        return f"{self.base}/console/{PAGES[kind]}#{token}"
