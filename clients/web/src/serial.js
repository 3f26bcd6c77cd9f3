// A serial port in a terminal: xterm.js over a link.

import { FitAddon } from "./xterm/addon-fit/lib/addon-fit.mjs";
import { Terminal } from "./xterm/xterm/lib/xterm.mjs";

const encoder = new TextEncoder();
const THEME = {
  background: "#0c1118",
  foreground: "#d7dfea",
  cursor: "#5cc8a8",
  cursorAccent: "#0c1118",
  selectionBackground: "#2f4a5c",
  black: "#1b2431", red: "#e5707a", green: "#8fc97f", yellow: "#e5b567",
  blue: "#6fa8e8", magenta: "#c58ae0", cyan: "#5cc8a8", white: "#d7dfea",
  brightBlack: "#5d6c80", brightRed: "#f08d95", brightGreen: "#a9dd9b", brightYellow: "#f2cb86",
  brightBlue: "#92c0f5", brightMagenta: "#d9a9ef", brightCyan: "#82dcc0", brightWhite: "#f4f7fb",
};

// What a terminal answers: reports of status, attributes, modes and its name.
const QUESTIONS = [
  { final: "n" }, { prefix: "?", final: "n" },
  { final: "c" }, { prefix: ">", final: "c" }, { prefix: "=", final: "c" },
  { intermediates: "$", final: "p" }, { prefix: "?", intermediates: "$", final: "p" },
  { prefix: ">", final: "q" },
];
const REQUESTS = [{ intermediates: "$", final: "q" }, { intermediates: "+", final: "q" }];
const COLOURS = [4, 10, 11, 12];

export class SerialView {
  label = "serial";

  constructor(element, link) {
    this.link = link;
    this.oldUntil = 0; // offset up to which output was there before the page
    this.oldPieces = 0; // of them, that the terminal has not shown yet
    element.classList.add("serial");
    this.terminal = new Terminal({
      cursorBlink: true,
      fontFamily: 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace',
      fontSize: 14,
      scrollback: 10_000,
      theme: THEME,
    });
    this.fit = new FitAddon();
    this.terminal.loadAddon(this.fit);
    this.terminal.open(element);
    this.terminal.onData((text) => link.send(encoder.encode(text)));
    this.terminal.onBinary((text) => link.send(Uint8Array.from(text, (c) => c.charCodeAt(0))));
    this.#passOverOldQuestions();
    this.terminal.onResize(() => this.#tellSize());
    this.terminal.attachCustomKeyEventHandler((event) => this.#isOurs(event));
    new ResizeObserver(() => this.fit.fit()).observe(element);
    link.addEventListener("bytes", ({ detail }) => this.#show(detail));
    this.fit.fit();
  }

  opened({ resumed, writer, end }) {
    if (!resumed) this.terminal.reset();
    this.oldUntil = resumed ? 0 : end;
    this.terminal.options.disableStdin = !writer;
    this.terminal.options.cursorBlink = writer;
    if (writer) this.#tellSize();
    this.focus();
  }

  watchOnly() {
    this.terminal.options.disableStdin = true;
    this.terminal.options.cursorBlink = false;
  }

  focus() {
    this.terminal.focus();
  }

  type(text) {
    this.terminal.paste(text);
  }

  selection() {
    return this.terminal.getSelection();
  }

  onSelect(listener) {
    this.terminal.onSelectionChange(listener);
  }

  /** Types the command that tells a shell how large the window is: a serial port cannot. */
  fitGuest() {
    const { rows, cols } = this.terminal;
    this.link.send(encoder.encode(`stty rows ${rows} cols ${cols}\r`));
    this.focus();
  }

  /** Programs ask a terminal where its cursor is and the like. What was asked long ago is not
   *  answered: it would be typed into whatever runs now.
   */
  #show({ data, offset }) {
    const bytes = new Uint8Array(data);
    if (offset >= this.oldUntil) {
      this.terminal.write(bytes);
      return;
    }
    this.oldPieces += 1;
    this.terminal.write(bytes, () => (this.oldPieces -= 1));
  }

  #passOverOldQuestions() {
    const { parser } = this.terminal;
    const isOld = () => this.oldPieces > 0;
    for (const id of QUESTIONS) parser.registerCsiHandler(id, isOld);
    for (const id of REQUESTS) parser.registerDcsHandler(id, isOld);
    for (const colour of COLOURS) {
      parser.registerOscHandler(colour, (said) => isOld() && said.includes("?"));
    }
  }

  #tellSize() {
    this.link.send({ resize: [this.terminal.cols, this.terminal.rows] });
  }

  /** Ctrl+Shift+C copies, as in other terminals; everything else is the guest's. */
  #isOurs(event) {
    const copies = event.ctrlKey && event.shiftKey && event.code === "KeyC";
    if (copies && event.type === "keydown" && this.terminal.hasSelection()) {
      event.preventDefault();
      document.execCommand("copy"); // works without the permission that the clipboard API needs
    }
    return !copies;
  }
}
