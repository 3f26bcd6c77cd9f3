// The WebSocket to the daemon, opened again when it breaks.
//
//     new ──start()──▶ connecting ──opened──▶ open ──lost──▶ connecting …
//                          ╰──refused, closed, given up──▶ over
//
// Every connection brings a token for the next one, so a link lasts as long as its page
// and its machine do. Events: "state" (detail: what and why), "opened", "message", "bytes".

const FIRST_PAUSE_MS = 300;
const LONGEST_PAUSE_MS = 5000;
const GIVE_UP_MS = 110_000; // the daemon keeps the token for 120 s
const REFUSED = 4403;
const ENDED = 4410;

export class Link extends EventTarget {
  /** `page`: which kind of console this page shows, as in its address. */
  constructor(address, { page, token }) {
    super();
    this.address = address;
    this.page = page;
    this.token = token;
    this.position = null; // {offset, log_id} of a serial port's log, once known
    this.watching = false; // somebody else types; it stays so until we take over
    this.socket = null;
    this.opened = false;
    this.openedOnce = false;
    this.lostAt = 0;
    this.pauseMs = FIRST_PAUSE_MS;
    this.last = null; // what the daemon said at the end
  }

  start(asked = {}) {
    this.opened = false;
    this.last = null;
    const socket = new WebSocket(this.address);
    socket.binaryType = "arraybuffer";
    const place = { ...this.position, watch: this.watching };
    const hello = { page: this.page, token: this.token, ...place, ...asked };
    socket.onopen = () => socket.send(JSON.stringify(hello));
    socket.onmessage = (event) => this.#take(event.data);
    socket.onclose = (event) => {
      if (this.socket === socket) this.#closed(event.code);
    };
    this.socket = socket;
    this.#tell("state", { state: "connecting", again: this.lostAt > 0 });
  }

  /** Sends bytes, or an object as JSON; drops both while there is no connection. */
  send(data) {
    if (!this.opened || this.socket.readyState !== WebSocket.OPEN) return;
    const bytes = data instanceof ArrayBuffer || ArrayBuffer.isView(data);
    this.socket.send(bytes ? data : JSON.stringify(data));
  }

  /** Connects anew, asking for something more. */
  reopen(asked) {
    const socket = this.socket;
    this.socket = null;
    socket.onmessage = null;
    socket.onclose = () => this.start(asked);
    socket.close(1000);
  }

  #take(data) {
    if (typeof data !== "string") {
      const { offset } = this.position ?? {};
      if (this.position !== null) this.position.offset += data.byteLength;
      this.#tell("bytes", { data, offset });
      return;
    }
    const message = JSON.parse(data);
    if (message.opened) {
      this.#openedWith(message.opened);
    } else if (message.refused || message.closed) {
      this.last = message;
    } else {
      if (message.expired && this.position !== null) this.position.offset += message.expired;
      if ("writer_lost" in message) this.watching = true;
      this.#tell("message", message);
    }
  }

  #openedWith(facts) {
    const { offset, log_id } = this.position ?? {};
    const goesOn = !log_id || (log_id === facts.log_id && offset === facts.offset);
    const resumed = this.openedOnce && goesOn;
    this.opened = this.openedOnce = true;
    this.token = facts.resume;
    this.lostAt = 0;
    this.pauseMs = FIRST_PAUSE_MS;
    this.watching = facts.writer === false;
    if (facts.log_id) this.position = { offset: facts.offset, log_id: facts.log_id };
    this.#tell("opened", { ...facts, resumed });
    this.#tell("state", { state: "open" });
  }

  #closed(code) {
    if (code === REFUSED || code === ENDED) {
      this.#tell("state", { state: "over", again: this.lostAt > 0, ...this.last });
      return;
    }
    this.lostAt ||= Date.now();
    if (Date.now() - this.lostAt > GIVE_UP_MS) {
      this.#tell("state", { state: "over", message: "the daemon cannot be reached" });
      return;
    }
    this.#tell("state", { state: "connecting", again: true });
    setTimeout(() => this.start(), this.pauseMs);
    this.pauseMs = Math.min(LONGEST_PAUSE_MS, 2 * this.pauseMs);
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
