// A screen by VNC: noVNC over a link, which shows it as a channel that it did not open.

import RFB from "./novnc/novnc/core/rfb.js";

const SHIFT = 0xffe1;
const RETURN = 0xff0d;
const TAB = 0xff09;
// What takes Shift on the keyboard that QEMU assumes (en-us).
const SHIFTED = new Set('ABCDEFGHIJKLMNOPQRSTUVWXYZ~!@#$%^&*()_+{}|:"<>?');

/** What noVNC expects of a WebSocket, without the messages that are the page's own. */
class Channel {
  binaryType = "arraybuffer";
  protocol = "";
  onopen = null;
  onmessage = null;
  onerror = null;
  onclose = null;

  constructor(link) {
    this.link = link;
    this.open = true;
  }

  get readyState() {
    return this.open ? WebSocket.OPEN : WebSocket.CLOSED;
  }

  send(data) {
    this.link.send(data);
  }

  close() {
    if (!this.open) return;
    this.open = false;
    this.onclose?.({ code: 1000, reason: "", wasClean: true });
  }
}

export class ScreenView {
  label = "screen";

  constructor(element, link) {
    this.element = element;
    this.link = link;
    this.rfb = null;
    this.channel = null;
    element.classList.add("screen");
    link.addEventListener("bytes", ({ detail }) => this.channel?.onmessage?.({ data: detail }));
  }

  opened() {
    this.#drop();
    this.channel = new Channel(this.link);
    this.rfb = new RFB(this.element, this.channel, { shared: true });
    this.rfb.scaleViewport = true;
    this.rfb.background = "transparent";
    this.rfb.focusOnClick = true;
    this.rfb.addEventListener("connect", () => this.focus());
  }

  focus() {
    this.rfb?.focus();
  }

  type(text) {
    for (const character of text.replaceAll("\r\n", "\n")) this.#press(character);
    this.focus();
  }

  controlAltDelete() {
    this.rfb?.sendCtrlAltDel();
    this.focus();
  }

  #press(character) {
    const shifted = SHIFTED.has(character);
    if (shifted) this.rfb?.sendKey(SHIFT, "ShiftLeft", true);
    this.rfb?.sendKey(keysym(character));
    if (shifted) this.rfb?.sendKey(SHIFT, "ShiftLeft", false);
  }

  #drop() {
    this.channel?.close();
    this.element.replaceChildren();
  }
}

/** X11's number of a character (keysymdef.h): Latin 1 as it is, the rest of Unicode above. */
function keysym(character) {
  const point = character.codePointAt(0);
  if (character === "\n") return RETURN;
  if (character === "\t") return TAB;
  return point < 0x100 ? point : 0x01000000 + point;
}
