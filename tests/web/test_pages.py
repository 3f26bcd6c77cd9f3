"""The pages in a browser, before a real guest: what it shows is seen, what is typed arrives."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from virtrpc.v1 import console_pb2 as pb
from virtrpc.v1 import instance_pb2

from tests.attached import Attached
from tests.daemon import DaemonProcess
from tests.instances import TIMEOUT_S, console_until
from tests.web.browser import Browser, Page, chromium
from tests.web.conftest import WebHost, web_host

pytestmark = [pytest.mark.libvirt, pytest.mark.asyncio(loop_scope="module")]
VNC, SERIAL = pb.CONSOLE_TYPE_VNC, pb.CONSOLE_TYPE_SERIAL
STATE = "document.body.dataset.state"
ROWS = "document.querySelector('.xterm-rows').innerText.replaceAll('\\u00a0', ' ')"
# Lit pixels of the guest's screen, and a number that changes with them.
PIXELS = """(() => {
    const canvas = document.querySelector('#console canvas');
    if (!canvas?.width) return null;
    const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let lit = 0, sum = 0;
    for (let i = 0; i < data.length; i += 4)
        if (data[i] > 100) { lit += 1; sum = (sum * 31 + i) | 0; }
    return {lit, sum, width: canvas.width, height: canvas.height};
})()"""


@pytest.fixture(scope="module")
def host(real_host: WebHost) -> WebHost:
    """A host whose guest's shell listens, on its serial port and on its screen."""
    console_until(real_host.connection, real_host.instance_id, b":~# ")
    return real_host


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(short_folder: Callable[[], Path]) -> AsyncIterator[Browser]:
    """One browser for all tests; each page has a profile of its own."""
    async with chromium(short_folder()) as running:
        yield running


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def pages_are_closed(browser: Browser, host: WebHost) -> AsyncIterator[None]:
    """Closes the pages of a test, and waits until none of them writes any more."""
    yield
    await browser.close_pages()
    if not host.running():
        return
    writer = pb.CONSOLE_MODE_WRITER
    with Attached(host.connection, host.instance_id, mode=writer, takeover=True) as last:
        last.opened()
        last.half_close()
        last.notice("closed")
        assert list(last.responses) == []


async def opened(browser: Browser, access: pb.GetConsoleResponse) -> Page:
    page = await browser.page()
    await page.open(access.web_url)
    await page.until(f"['open', 'watching'].includes({STATE})")
    return page


async def entered(page: Page, text: str) -> None:
    """Types a line."""
    await page.type(text)
    await page.press("Enter", code="Enter", number=13, text="\r")


def clean(page: Page, access: pb.GetConsoleResponse) -> None:
    """Nothing went wrong in the page, nothing came from elsewhere, no token went anywhere."""
    assert page.errors == []
    assert {urlsplit(address).netloc for address in page.requests} == {
        urlsplit(access.web_url).netloc
    }
    assert not [address for address in page.requests if access.token in address]


async def test_serial_page_takes_a_command_and_shows_the_answer(
    host: WebHost, browser: Browser
) -> None:
    access = host.access(SERIAL)
    page = await opened(browser, access)
    assert await page.evaluate("document.title") == "web-guest – serial"
    assert access.token not in await page.evaluate("location.href")
    await entered(page, "echo $((6*7))-is-the-answer")
    await page.until(f"{ROWS}.includes('\\n42-is-the-answer')")
    clean(page, access)


async def test_page_that_is_loaded_again_goes_on(host: WebHost, browser: Browser) -> None:
    """Once: a token that was spent meanwhile is nowhere to be found."""
    serial, screen = [await opened(browser, host.access(kind)) for kind in (SERIAL, VNC)]
    await entered(serial, "echo $((7*7))-before")
    await serial.until(f"{ROWS}.includes('\\n49-before')")
    for page in (serial, screen):
        await page.reload()
        await page.until(f"{STATE} === 'open'")
        assert await page.evaluate("Object.keys(sessionStorage)") == []
    await serial.until(f"{ROWS}.includes('\\n49-before')")
    await entered(serial, "echo $((8*8))-after")
    await serial.until(f"{ROWS}.includes('\\n64-after')")
    await screen.until(f"({PIXELS})?.lit > 1000")


async def test_questions_to_a_terminal_are_answered_once(host: WebHost, browser: Browser) -> None:
    """A shell asks where the cursor is; of what is shown again nothing is typed anew."""
    access = host.access(SERIAL)
    page = await opened(browser, access)
    await entered(page, "printf 'asked \\033[6n\\n'; read -r answer; clear")
    answer = await page.until(f"{ROWS}.match(/asked \\s*(.\\[\\[\\d+;\\d+R)/)?.[1]")
    for again in (page.reload, partial(page.open, host.access(SERIAL).web_url)):
        await again()
        await page.until(f"{STATE} === 'open' && {ROWS}.includes('{answer}')")
        await page.type("typed")
        await page.until(f"{ROWS}.includes('typed')")
        assert (await page.evaluate(ROWS)).count("^[[") == 1
    await entered(page, "")
    await page.until(f"!{ROWS}.includes('asked')")


async def test_shell_is_told_the_window_s_size(host: WebHost, browser: Browser) -> None:
    page = await opened(browser, host.access(SERIAL))
    await page.evaluate("document.getElementById('fit').click()")
    await page.until(f"/stty rows \\d+ cols \\d+/.test({ROWS})")
    await entered(page, "clear; stty size")
    shown = await page.until(f"{ROWS}.match(/(\\d+) (\\d+)/)?.slice(1).map(Number)")
    assert shown[0] > 24
    assert shown[1] > 80


async def test_page_at_another_address_says_so(
    host: WebHost,
    browser: Browser,
    short_folder: Callable[[], Path],
    guest_images: Callable[[DaemonProcess], None],
) -> None:
    """As through a tunnel of ssh: its WebSocket would be refused. The token stays good."""
    del host  # QEMU has no part in it
    url = "--http-url=https://console.example"
    for elsewhere in web_host("fake", short_folder(), guest_images, url):
        access = elsewhere.access(SERIAL)
        page = await browser.page()
        token = access.web_url.partition("#")[2]
        await page.open(f"http://{elsewhere.listens}/console/serial#{token}")
        await page.until(f"{STATE} === 'over'")
        assert "https://console.example" in await page.evaluate(
            "document.getElementById('curtain-text').textContent"
        )


async def test_serial_page_copies_and_pastes(host: WebHost, browser: Browser) -> None:
    page = await opened(browser, host.access(SERIAL))
    await browser.call(
        "Browser.grantPermissions",
        permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
        browserContextId=page.profile,
    )
    await page.until(f"{ROWS}.includes('# ')")
    assert await page.evaluate("document.getElementById('copy').disabled")
    await entered(page, "clear; echo echo $((6*6))-pasted")
    await page.until(f"{ROWS}.startsWith('echo 36-pasted')")
    await page.click(60, 60, count=3)
    await page.until("!document.getElementById('copy').disabled")
    await page.evaluate("document.getElementById('copy').click()")
    await page.until("document.getElementById('notice').textContent === 'Copied.'")
    assert (await page.evaluate("navigator.clipboard.readText()")).strip() == "echo 36-pasted"
    await page.evaluate("document.getElementById('paste').click()")
    await page.until("document.getElementById('paste-text').value.startsWith('echo 36')")
    await page.evaluate("document.querySelector('button[value=type]').click()")
    await page.until("!document.querySelector('dialog').open")
    await page.until(f"{ROWS}.includes('# echo 36-pasted')")
    await page.press("Enter", code="Enter", number=13, text="\r")
    await page.until(f"{ROWS}.includes('\\n36-pasted')")


@pytest.mark.parametrize("kind", [SERIAL, VNC], ids=["serial", "screen"])
async def test_page_fits_a_narrow_screen_and_fills_a_whole_one(
    host: WebHost, browser: Browser, kind: "pb.ConsoleType.ValueType"
) -> None:
    page = await opened(browser, host.access(kind))
    await page.call(
        "Emulation.setDeviceMetricsOverride", width=360, height=640, deviceScaleFactor=1,
        mobile=False,
    )  # fmt: skip
    await page.until("innerWidth === 360")
    keys = "keys" if kind == VNC else "fit"
    for name in ("name", "status", "paste", keys, "fullscreen"):
        place = await page.evaluate(
            f"document.getElementById('{name}').getBoundingClientRect().toJSON()"
        )
        assert place["left"] >= 0, name
        assert place["right"] <= 360, name
        assert place["width"] > 0, name
    await page.call("Emulation.clearDeviceMetricsOverride")
    button = await page.until(
        "innerWidth > 900 && document.getElementById('fullscreen').getBoundingClientRect().toJSON()"
    )
    await page.click(button["x"] + 10, button["y"] + 10)
    await page.until("document.fullscreenElement === document.body")
    header = "document.querySelector('header').getBoundingClientRect().height"
    assert await page.until(f"{header} === 0")


async def test_screen_page_shows_the_guest_and_takes_keys(host: WebHost, browser: Browser) -> None:
    access = host.access(VNC)
    page = await opened(browser, access)
    before = await page.until(f"({PIXELS})?.lit > 1000 && {PIXELS}")
    assert (before["width"], before["height"]) == (720, 400)
    for key in "ls":
        await page.press(key, code=f"Key{key.upper()}", number=ord(key.upper()), text=key)
    await page.press("Enter", code="Enter", number=13, text="\r")
    after = await page.until(f"{PIXELS}.lit > {before['lit']} + 100 && {PIXELS}")
    assert after["sum"] != before["sum"]
    clean(page, access)


async def test_keys_that_browsers_keep_are_offered(host: WebHost, browser: Browser) -> None:
    serial = await opened(browser, host.access(SERIAL))
    await entered(serial, "echo second >/dev/tty2; echo $((2+2))-made")
    await serial.until(f"{ROWS}.includes('\\n4-made')")
    page = await opened(browser, host.access(VNC))
    await page.until(f"({PIXELS})?.lit > 1000")
    for name, shown in (("Ctrl+Alt+F2", "< 500"), ("Ctrl+Alt+F1", "> 1000")):
        await page.evaluate(
            f"""(() => {{
                const keys = document.getElementById('keys');
                keys.value = [...keys.options].find((o) => o.text === '{name}').value;
                keys.onchange();
            }})()"""
        )
        await page.until(f"({PIXELS})?.lit {shown}")


async def test_text_is_typed_into_a_screen(host: WebHost, browser: Browser) -> None:
    """Also one longer than what QEMU keeps of keys that are pressed too fast."""
    long = "abcdefghij" * 25
    page = await opened(browser, host.access(VNC))
    await page.until(f"({PIXELS})?.lit > 1000")
    await page.evaluate("document.getElementById('paste').click()")
    await page.evaluate(
        "document.getElementById('paste-text').value ="
        f"'echo \"{long} Typed & Shifted!\" >/dev/ttyS0\\n'"
    )
    end = await asyncio.to_thread(console_end, host)
    await page.evaluate("document.querySelector('button[value=type]').click()")
    await asyncio.to_thread(
        console_until,
        host.connection,
        host.instance_id,
        f"{long} Typed & Shifted!".encode(),
        offset=end,
    )


async def test_second_page_watches_and_takes_over(host: WebHost, browser: Browser) -> None:
    with Attached(host.connection, host.instance_id, mode=pb.CONSOLE_MODE_WRITER) as other:
        other.opened()
        page = await opened(browser, host.access(SERIAL))
        await page.until("!document.getElementById('takeover').hidden")
        status = await page.evaluate("document.getElementById('status').textContent")
        assert status == "watching only, local:unix types here"
        await page.evaluate("document.getElementById('takeover').click()")
        await page.until("document.getElementById('takeover').hidden")
        await asyncio.to_thread(other.notice, "writer_lost")
        await entered(page, "echo $((2*4))-taken")
        await page.until(f"{ROWS}.includes('\\n8-taken')")


async def test_used_and_foreign_links_open_nothing(host: WebHost, browser: Browser) -> None:
    used = host.access(VNC)
    await opened(browser, used)
    foreign = host.access(SERIAL).web_url.replace("/serial#", "/vnc#")
    for address in (used.web_url, foreign, used.web_url.partition("#")[0]):
        page = await browser.page()
        await page.open(address)
        await page.until(f"{STATE} === 'over'")
        title = await page.evaluate("document.getElementById('curtain-title').textContent")
        assert title == "This link does not open the console"


async def test_pages_outlast_the_daemon_and_end_with_the_guest(
    host: WebHost, browser: Browser
) -> None:
    serial, screen = [await opened(browser, host.access(kind)) for kind in (SERIAL, VNC)]
    await entered(serial, "echo $((3*3))-before")
    await serial.until(f"{ROWS}.includes('\\n9-before')")
    await asyncio.to_thread(host.daemon.kill)
    await serial.until(f"{STATE} === 'connecting'")
    await asyncio.to_thread(host.daemon.start)
    await serial.until(f"{STATE} === 'open'")
    await entered(serial, "echo $((4*4))-after")
    await serial.until(f"{ROWS}.includes('\\n16-after')")
    assert (await serial.evaluate(ROWS)).count("\n9-before") == 1
    await screen.until(f"{STATE} === 'open' && ({PIXELS})?.lit > 1000")
    await asyncio.to_thread(switch_off, host)
    for page in (serial, screen):
        await page.until(f"{STATE} === 'over'")
        assert (
            await page.evaluate("getComputedStyle(document.querySelector('nav')).visibility")
            == "hidden"
        )
        text = await page.evaluate("document.getElementById('curtain-text').textContent")
        assert text == "The instance has stopped."


def console_end(host: WebHost) -> int:
    request = pb.GetConsoleOutputRequest(instance_id=host.instance_id, tail_bytes=0)
    return host.connection.consoles.GetConsoleOutput(request, timeout=TIMEOUT_S).end_offset


def switch_off(host: WebHost) -> None:
    off = instance_pb2.PowerOffInstanceRequest(instance_id=host.instance_id)
    off.timeout.FromSeconds(0)
    host.connection.instances.PowerOffInstance(off, timeout=TIMEOUT_S, wait_for_ready=True)
