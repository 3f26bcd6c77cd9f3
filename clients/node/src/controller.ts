/**
 * An example controller: the main job of virtrpc from TypeScript, with nothing but
 * clients generated from the protos.
 *
 *     watch events ─▶ spawn ─▶ follow the console ─▶ destroy ─▶ DELETED seen
 *                       ╰── failed, interrupted, out of time ──▶ destroy ─▶ exit ≠ 0
 */

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "./client.js";
import { consoleUntil } from "./console.js";
import { described, Failure } from "./errors.js";
import { EventWatch } from "./events.js";
import { PowerState } from "./gen/virtrpc/v1/types.js";
import { destroy, spawn } from "./instances.js";
import { type Options, parsed, USAGE } from "./options.js";
import { type Print, toStdout } from "./print.js";

const EXIT_INTERRUPTED = 130;
/** Longest wait for the event of an end that the daemon has already confirmed. */
const DELETED_TIMEOUT_MS = 30_000;

/** Aborted when the work is to end early; its reason says why. */
class Interruption extends AbortController {
  constructor() {
    super();
    const interrupt = () => this.abort(new Failure("interrupted", EXIT_INTERRUPTED));
    process.once("SIGINT", interrupt).once("SIGTERM", interrupt);
    process.stdout.on("error", (error) => this.abort(new Failure(`output: ${error.message}`)));
  }

  /** Settles as `promise` does, or rejects when the interruption comes first. */
  bound<T>(promise: Promise<T>): Promise<T> {
    this.signal.throwIfAborted();
    const interrupted = new Promise<never>((_, reject) => {
      this.signal.addEventListener("abort", () => reject(this.signal.reason));
    });
    return Promise.race([promise, interrupted]);
  }
}

/** Prints the events of all instances until interrupted. */
async function watchOnly(client: Client, interruption: Interruption, print: Print): Promise<void> {
  const { signal } = interruption;
  const watch = new EventWatch(client, { instanceIds: [], signal, print });
  await watch.ended.catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}

/** The whole life of one instance. */
async function controlOne(
  client: Client,
  options: Options,
  interruption: Interruption,
  print: Print,
): Promise<void> {
  const instanceId = randomUUID();
  // The watch outlives an interruption: the end of the instance is to be seen too.
  const stop = new AbortController();
  const watch = new EventWatch(client, { instanceIds: [instanceId], signal: stop.signal, print });
  const watched = watch.ended.catch((error: unknown) => interruption.abort(error));
  const timer = setTimeout(() => {
    interruption.abort(new Failure(`${options.until} did not appear in ${options.timeoutMs / 1_000} s`));
  }, options.timeoutMs);
  try {
    await interruption.bound(watch.established);
    await used(client, { instanceId, options, signal: interruption.signal, print });
    await Promise.race([watch.deleted, watched, late()]);
  } finally {
    clearTimeout(timer);
    stop.abort();
    await watched;
  }
}

/** Spawns, uses and destroys an instance: destroyed it is whatever came before. */
async function used(
  client: Client,
  use: { instanceId: string; options: Options; signal: AbortSignal; print: Print },
): Promise<void> {
  const { instanceId, options, signal, print } = use;
  const end = async () => {
    const own = { signal: new AbortController().signal, print };
    const { alreadyGone } = await destroy(client, instanceId, own);
    print("instance", `${instanceId} ${alreadyGone ? "is not there" : "destroyed"}`);
  };
  try {
    const instance = await spawn(client, { instanceId, spec: options.spec }, { signal, print });
    print("instance", `${instanceId} ${instance.name} ${PowerState[instance.powerState]}`);
    const line = await consoleUntil(client, { instanceId, until: options.until }, { signal, print });
    print("found", line);
  } catch (error) {
    // The first failure is the one to tell at the end.
    await end().catch((second: unknown) => print("error", described(second)));
    throw error;
  }
  await end();
}

async function late(): Promise<never> {
  await sleep(DELETED_TIMEOUT_MS, undefined, { ref: false });
  throw new Failure(`DELETED was not seen in ${DELETED_TIMEOUT_MS / 1_000} s`);
}

async function main(words: string[]): Promise<void> {
  const options = parsed(words);
  if (options.help) {
    process.stdout.write(USAGE);
    return;
  }
  const client = new Client(options.address);
  const interruption = new Interruption();
  try {
    if (options.watch) await watchOnly(client, interruption, toStdout);
    else await controlOne(client, options, interruption, toStdout);
  } finally {
    client.close();
  }
}

main(process.argv.slice(2)).catch((error: unknown) => {
  process.stderr.write(`error: ${described(error)}\n`);
  process.exitCode = error instanceof Failure ? error.exitCode : 1;
});
