// A screen by VNC: noVNC over a link, which shows it as a channel that it did not open.

import RFB from "./novnc/novnc/core/rfb.js";

const SHIFT = 0xffe1;
const RETURN = 0xff0d;
const TAB = 0xff09;
// What takes Shift on the keyboard that QEMU assumes (en-us).
const SHIFTED = new Set('ABCDEFGHIJKLMNOPQRSTUVWXYZ~!@#$%^&*()_+{}|:"<>?');

// As browsers call them (KeyboardEvent.code), with X11's numbers.
const KEYS = {
  ControlLeft: 0xffe3, AltLeft: 0xffe9, MetaLeft: 0xffeb, Delete: 0xffff, Backspace: 0xff08,
  Escape: 0xff1b, Tab: TAB, PrintScreen: 0xff61,
  ...Object.fromEntries([...Array(12).keys()].map((i) => [`F${i + 1}`, 0xffbe + i])),
};
const EVENT_MS = 11; // QEMU rests 10 ms after each (key-delay-ms), and keeps some 340

/** Keys that browsers and desktops keep for themselves. */
const COMBINATIONS = [
  ["Ctrl+Alt+Del", "ControlLeft", "AltLeft", "Delete"],
  ["Ctrl+Alt+Backspace", "ControlLeft", "AltLeft", "Backspace"],
  ...[1, 2, 3, 4, 5, 6, 7].map((n) => [`Ctrl+Alt+F${n}`, "ControlLeft", "AltLeft", `F${n}`]),
  ["Alt+Tab", "AltLeft", "Tab"],
  ["Alt+F4", "AltLeft", "F4"],
  ["Esc", "Escape"],
  ["Super", "MetaLeft"],
  ["Print screen", "PrintScreen"],
];

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
  combinations = COMBINATIONS;

  constructor(element, link) {
    this.element = element;
    this.link = link;
    this.rfb = null;
    this.channel = null;
    element.classList.add("screen");
    link.addEventListener("bytes", ({ detail }) => {
      this.channel?.onmessage?.({ data: detail.data });
    });
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

  /** No faster than a guest's keyboard takes it: QEMU throws away what is too much. */
  async type(text) {
    this.focus();
    const { rfb } = this;
    for (const character of text.replaceAll("\r\n", "\n")) {
      if (this.rfb !== rfb) return;
      const events = this.#press(character);
      await new Promise((done) => setTimeout(done, events * EVENT_MS));
    }
  }

  /** Presses keys of KEYS together. */
  press(names) {
    const pressed = names.map((name) => [KEYS[name], name]);
    for (const [key, code] of pressed) this.rfb?.sendKey(key, code, true);
    for (const [key, code] of pressed.reverse()) this.rfb?.sendKey(key, code, false);
    this.focus();
  }

  /** One character; gives how many events of keys that takes. */
  #press(character) {
    const shifted = SHIFTED.has(character);
    if (shifted) this.rfb?.sendKey(SHIFT, "ShiftLeft", true);
    this.rfb?.sendKey(keysym(character));
    if (shifted) this.rfb?.sendKey(SHIFT, "ShiftLeft", false);
    return shifted ? 4 : 2;
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
