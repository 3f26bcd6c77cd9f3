/**
 * Calls and streams that go on where they broke off.
 *
 *     open ──message──▶ live ──broken──▶ pause ──▶ open …   given up after `TRIES` in a row
 *       └─broken before anything ever came: thrown, there is nothing to resume
 */

import { setTimeout as sleep } from "node:timers/promises";
import { described, ServiceError } from "./errors.js";
import type { Print } from "./print.js";

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;
const TRIES = 12;

/** Decides whether and when a broken call is repeated, and tells of it. */
export class Retries {
  private left = 0;

  /** @param what - name of the call, for the notice */
  constructor(
    private readonly what: string,
    private readonly print: Print,
    private readonly signal: AbortSignal,
  ) {}

  /** Something came: all tries are left again. */
  progress(): this {
    this.left = TRIES;
    return this;
  }

  /** Waits until the next try; throws `error` when it would not pass, or has not for too long. */
  async pause(error: unknown): Promise<void> {
    if (!(error instanceof ServiceError && error.transient) || this.left === 0) throw error;
    const longest = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (TRIES - this.left));
    this.left -= 1;
    // Scattered, so that the clients of a restarted daemon do not come back all at once.
    const pauseMs = Math.max(longest * (0.5 + Math.random() / 2), error.retryAfterMs);
    const [first] = described(error).split("\n");
    this.print("retry", `${this.what} in ${(pauseMs / 1e3).toFixed(1)} s: ${first}`);
    await sleep(pauseMs, undefined, { signal: this.signal }).catch(() => this.signal.throwIfAborted());
  }
}

/** Repeats a call that is idempotent, or carries a request_id, until it is answered. */
export async function retried<T>(call: () => Promise<T>, retries: Retries): Promise<T> {
  retries.progress();
  for (;;) {
    try {
      return await call();
    } catch (error) {
      await retries.pause(error);
    }
  }
}

/**
 * Everything that a stream brings, over breaks. `open` asks for what has not come
 * yet: it is called again only after the consumer has come back for the next
 * message, so what the consumer remembers of the last one is up to date.
 */
export async function* resumed<Message>(
  open: () => AsyncIterable<Message>,
  retries: Retries,
): AsyncGenerator<Message, void> {
  for (;;) {
    try {
      for await (const message of open()) {
        retries.progress();
        yield message;
      }
      return;
    } catch (error) {
      await retries.pause(error);
    }
  }
}
