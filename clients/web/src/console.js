// The page: its token, its console, and what the bar and the notices say.

import { Link } from "./link.js";

const NOTICE_MS = 6000;
const KEPT = `virtrpc token ${location.pathname}`;
const ORIGIN = document.querySelector("meta[name=origin]").content;
const ELSEWHERE = "OTHER_ORIGIN";
const by = (id) => document.getElementById(id);

/** Style elements that the terminal adds pass the page's policy with its nonce. */
function allowStyles() {
  const nonce = document.querySelector("script[nonce]").nonce;
  const create = document.createElement.bind(document);
  document.createElement = (name, options) => {
    const element = create(name, options);
    if (name === "style") element.setAttribute("nonce", nonce);
    return element;
  };
}

/** The token of the address, which then no longer shows it: nor do history and bookmarks.
 *  A page that is loaded again finds the one for its next connection.
 */
function takeToken() {
  const token = location.hash.slice(1) || sessionStorage.getItem(KEPT) || "";
  history.replaceState(null, "", location.pathname);
  sessionStorage.removeItem(KEPT);
  return token;
}

/** Only while the page is not there: another tab must not find it. */
function keepToken(link) {
  window.addEventListener("pagehide", () => {
    if (link.openedOnce) sessionStorage.setItem(KEPT, link.token);
  });
  window.addEventListener("pageshow", () => sessionStorage.removeItem(KEPT));
}

async function makeView(link) {
  if (link.page === "serial") {
    const { SerialView } = await import("./serial.js");
    return new SerialView(by("console"), link);
  }
  const { ScreenView } = await import("./screen.js");
  return new ScreenView(by("console"), link);
}

function showState({ state, again, ...last }) {
  document.body.dataset.state = state;
  by("status").textContent = { open: "connected", over: "disconnected" }[state]
    ?? (again ? "connection lost, connecting again …" : "connecting …");
  by("curtain").hidden = state !== "over";
  if (state === "over") document.title = `(disconnected) ${document.title}`;
  if (state !== "over") return;
  const [title, text] = farewell({ again, ...last });
  by("curtain-title").textContent = title;
  by("curtain-text").textContent = text;
}

/** What to say at the end: a heading, and what to do. */
function farewell({ again, refused, message }) {
  if (refused === ELSEWHERE) {
    return ["This is not the console's own address",
      `Open the link as it was given: it begins with ${ORIGIN}, not with ${location.origin}.`];
  }
  if (refused && again) {
    return ["The console could not be opened again",
      "The instance was stopped meanwhile, or the page was away too long. Ask for a new link."];
  }
  if (refused === "CONSOLE_TOKEN_REFUSED") {
    return ["This link does not open the console",
      "A link can be used once, and only for a while. Ask for a new one."];
  }
  return ["Disconnected", `${sentence(message ?? "the connection has ended")}.`];
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

let noticeTimer = 0;

function notice(text, { stays = false } = {}) {
  clearTimeout(noticeTimer);
  by("notice").textContent = text;
  by("notice").hidden = !text;
  if (text && !stays) noticeTimer = setTimeout(() => notice(""), NOTICE_MS);
}

function watchOnly(view, writer) {
  view.watchOnly();
  by("takeover").hidden = false;
  by("paste").disabled = by("fit").disabled = true;
  document.body.dataset.state = "watching";
  by("status").textContent = `watching only, ${writer || "nobody"} types here`;
}

function listen(link, view) {
  link.addEventListener("state", ({ detail }) => showState(detail));
  link.addEventListener("opened", ({ detail }) => {
    const name = detail.name || detail.instance_id;
    by("name").textContent = name;
    document.title = `${name} – ${view.label}`;
    by("name").title = detail.instance_id;
    by("takeover").hidden = true;
    by("paste").disabled = by("fit").disabled = false;
    view.opened(detail);
    if (detail.writer === false) {
      queueMicrotask(() => watchOnly(view, detail.writer_identity));
    }
  });
  link.addEventListener("message", ({ detail }) => {
    if ("writer_lost" in detail) watchOnly(view, detail.writer_lost);
    if (detail.dropped) notice("The instance is off: what was typed has gone nowhere.");
    if (detail.expired) notice(`${detail.expired} bytes of output are no longer kept.`);
  });
}

function equip(link, view) {
  by("kind").textContent = view.label;
  by("takeover").onclick = () => link.reopen({ takeover: true, watch: false });
  by("fullscreen").onclick = () => toggleFullscreen(view);
  by("paste").onclick = () => askForText(view);
  by("fit").hidden = !view.fitGuest;
  by("fit").onclick = () => view.fitGuest();
  offerKeys(view);
  if (view.onSelect) {
    by("copy").hidden = false;
    by("copy").disabled = true;
    by("copy").onclick = () => copy(view);
    view.onSelect(() => (by("copy").disabled = !view.selection()));
  }
}

function offerKeys(view) {
  const keys = by("keys");
  keys.hidden = !view.combinations;
  for (const [name, ...pressed] of view.combinations ?? []) {
    keys.add(new Option(name, pressed.join(" ")));
  }
  keys.onchange = () => {
    view.press(keys.value.split(" "));
    keys.value = "";
  };
}

/** There Esc, Ctrl+W and their like go to the guest too, where the browser can do that. */
async function toggleFullscreen(view) {
  if (document.fullscreenElement) {
    await document.exitFullscreen();
    return;
  }
  await document.body.requestFullscreen();
  view.focus();
  try {
    await navigator.keyboard?.lock();
    if (navigator.keyboard) notice("Hold Esc to leave the full screen.");
  } catch {
    // Then they stay the browser's.
  }
}

async function copy(view) {
  try {
    await navigator.clipboard.writeText(view.selection());
    notice("Copied.");
  } catch {
    notice("The browser does not allow it: press Ctrl+Shift+C.");
  }
  view.focus();
}

async function askForText(view) {
  const dialog = by("paste-dialog");
  const field = by("paste-text");
  field.value = "";
  dialog.onclose = () => {
    if (dialog.returnValue === "type") view.type(field.value);
    field.value = "";
    view.focus();
  };
  dialog.returnValue = "";
  dialog.showModal();
  try {
    field.value ||= await navigator.clipboard.readText();
  } catch {
    // Not allowed, or not a page by HTTPS: there is the keyboard.
  }
}

allowStyles();
const socket = new URL("socket", location.href);
socket.protocol = socket.protocol.replace("http", "ws");
socket.hash = "";
const token = takeToken();
const link = new Link(socket.href, { page: location.pathname.split("/").pop(), token });
const view = await makeView(link);
listen(link, view);
equip(link, view);
keepToken(link);
if (ORIGIN !== location.origin) showState({ state: "over", refused: ELSEWHERE });
else if (token) link.start();
else showState({ state: "over", refused: "CONSOLE_TOKEN_REFUSED" });
// Another token in the address is another console.
window.addEventListener("hashchange", () => location.reload());
