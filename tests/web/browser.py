"""A headless Chromium, driven over its debugging protocol (CDP): no more of it than tests need.

Source: https://chromedevtools.github.io/devtools-protocol/.
"""

import asyncio
import base64
import itertools
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

_START_S = 30.0
_WAIT_S = 20.0
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--disable-dev-shm-usage", "--no-default-browser-check",
    "--mute-audio", "--password-store=basic", "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=1000,700", "--remote-debugging-port=0",
)  # fmt: skip
_ENDPOINT = re.compile(rb"DevTools listening on (ws://\S+)")


class Page:
    """A tab. What its console and its network said is kept."""

    def __init__(self, browser: "Browser", session: str, profile: str) -> None:
        self._browser = browser
        self._session = session
        self.profile = profile
        self.errors: list[str] = []
        """Exceptions, refused loads, errors logged."""
        self.requests: list[str] = []
        """Addresses that were asked for."""

    async def open(self, address: str) -> None:
        """Goes there; it is loaded when this returns."""
        loaded = self._browser.expect(self._session, "Page.loadEventFired")
        await self.call("Page.navigate", url=address)
        await asyncio.wait_for(loaded, _WAIT_S)

    async def reload(self) -> None:
        """Loads it again, as F5 does."""
        loaded = self._browser.expect(self._session, "Page.loadEventFired")
        await self.call("Page.reload")
        await asyncio.wait_for(loaded, _WAIT_S)

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression; of a promise what it brings."""
        done = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    async def until(self, condition: str) -> Any:
        """Waits in the page, frame by frame, until an expression is true; gives its value."""
        found = await self.evaluate(
            f"""new Promise((resolve) => {{
                const ends = performance.now() + {_WAIT_S * 1000};
                const look = () => {{
                    const found = ({condition});
                    if (found || performance.now() > ends) resolve(found);
                    else requestAnimationFrame(look);
                }};
                look();
            }})"""
        )
        assert found, f"not in {_WAIT_S} s: {condition}; errors: {self.errors}"
        return found

    async def type(self, text: str) -> None:
        """Text as if typed or pasted by an input method."""
        await self.call("Input.insertText", text=text)

    async def press(self, key: str, *, code: str, number: int, text: str = "") -> None:
        """One key, down and up."""
        about = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    async def click(self, x: float, y: float, *, count: int = 1) -> None:
        """Clicks with the left button; three times takes a line."""
        for number in range(1, count + 1):
            about = {"x": x, "y": y, "button": "left", "clickCount": number}
            await self.call("Input.dispatchMouseEvent", type="mousePressed", **about)
            await self.call("Input.dispatchMouseEvent", type="mouseReleased", **about)

    async def screenshot(self) -> bytes:
        """A picture of the page, PNG."""
        shot = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(shot["data"])

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A method of the protocol."""
        return await self._browser.call(method, self._session, **parameters)

    def heard(self, method: str, parameters: dict[str, Any]) -> None:
        """An event of the protocol."""
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(str(parameters["entry"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requests.append(parameters["url"])


class Browser:
    """A browser whose pages share nothing: each has a profile of its own."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._expected: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._pages: dict[str, Page] = {}
        self._reader = asyncio.ensure_future(self._read())

    async def page(self) -> Page:
        """A new tab."""
        profile = await self.call("Target.createBrowserContext")
        target = await self.call(
            "Target.createTarget", url="about:blank", browserContextId=profile["browserContextId"]
        )
        attached = await self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        page = Page(self, attached["sessionId"], profile["browserContextId"])
        self._pages[attached["sessionId"]] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.call(f"{domain}.enable")
        return page

    async def close_pages(self) -> None:
        """Closes all tabs."""
        while self._pages:
            _, page = self._pages.popitem()
            await self.call("Target.disposeBrowserContext", browserContextId=page.profile)

    def expect(self, session: str, event: str) -> "asyncio.Future[None]":
        """Done at the next event of a kind."""
        future = self._expected[session, event] = asyncio.get_running_loop().create_future()
        return future

    async def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """A method of the protocol."""
        number = next(self._numbers)
        reply_of = self._replies[number] = asyncio.get_running_loop().create_future()
        about = {"sessionId": session} if session else {}
        await self._socket.send_json(
            {"id": number, "method": method, "params": parameters, **about}
        )
        reply = await asyncio.wait_for(reply_of, _WAIT_S + _START_S)
        assert "error" not in reply, (method, reply)
        result: dict[str, Any] = reply["result"]
        return result

    async def close(self) -> None:
        """Reads no more."""
        self._reader.cancel()
        await asyncio.wait({self._reader})

    async def _read(self) -> None:
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                self._replies.pop(said["id"]).set_result(said)
                continue
            session, event = said.get("sessionId", ""), said["method"]
            if session in self._pages:
                self._pages[session].heard(event, said["params"])
            expected = self._expected.pop((session, event), None)
            if expected is not None:
                expected.set_result(None)


@asynccontextmanager
async def chromium(profile: Path) -> AsyncIterator[Browser]:
    """A browser that runs inside, on an empty profile."""
    program = shutil.which("chromium")
    assert program is not None, "chromium is missing (Debian: chromium)"
    process = await asyncio.create_subprocess_exec(
        program, *_FLAGS, f"--user-data-dir={profile}", "about:blank",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, "HOME": str(profile)},
    )  # fmt: skip
    try:
        endpoint = await asyncio.wait_for(_endpoint(process), _START_S)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(endpoint, max_msg_size=0) as socket,
        ):
            browser = Browser(socket)
            try:
                yield browser
                await browser.call("Browser.close")
            finally:
                await browser.close()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def _endpoint(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = b""
    async for line in process.stderr:
        said += line
        if (found := _ENDPOINT.search(line)) is not None:
            return found[1].decode()
    raise AssertionError(f"chromium did not start: {said[-2000:]!r}")
