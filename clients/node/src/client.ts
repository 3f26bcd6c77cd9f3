/**
 * The channel to a daemon, its stubs, and calls as promises and async iterators.
 *
 * Every call takes an AbortSignal: aborting cancels it and throws the signal's
 * reason. A status other than OK is thrown as a {@link ServiceError}.
 */

import {
  Channel,
  type CallOptions,
  type ClientReadableStream,
  type ClientUnaryCall,
  credentials,
  Metadata,
  type requestCallback,
  type ServiceError as Status,
} from "@grpc/grpc-js";
import { fromStatus } from "./errors.js";
import { ConsoleServiceClient } from "./gen/virtrpc/v1/console.js";
import { EventServiceClient } from "./gen/virtrpc/v1/event.js";
import { InstanceServiceClient } from "./gen/virtrpc/v1/instance.js";
import { OperationServiceClient } from "./gen/virtrpc/v1/operation.js";

const CHANNEL_OPTIONS = {
  // grpc-js waits up to two minutes between attempts; the retries here are the ones to wait.
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 2_000,
  // A peer that vanished without a word is noticed by its silence.
  "grpc.keepalive_time_ms": 20_000,
  "grpc.keepalive_timeout_ms": 10_000,
};
const UNARY_TIMEOUT_MS = 30_000;

/** One connection that all stubs share. */
export class Client {
  readonly instances: InstanceServiceClient;
  readonly operations: OperationServiceClient;
  readonly events: EventServiceClient;
  readonly consoles: ConsoleServiceClient;
  private readonly channel: Channel;

  /** @param address - `unix:/path` or `host:port`; nothing is connected before the first call */
  constructor(address: string) {
    // The daemon speaks plain text on Unix sockets and loopback only; credentials.createSsl
    // with a client certificate takes this place beyond them.
    const plain = credentials.createInsecure();
    this.channel = new Channel(address, plain, CHANNEL_OPTIONS);
    const shared = { channelOverride: this.channel };
    this.instances = new InstanceServiceClient(address, plain, shared);
    this.operations = new OperationServiceClient(address, plain, shared);
    this.events = new EventServiceClient(address, plain, shared);
    this.consoles = new ConsoleServiceClient(address, plain, shared);
  }

  close(): void {
    this.channel.close();
  }
}

type UnaryMethod<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: Partial<CallOptions>,
  callback: requestCallback<Response>,
) => ClientUnaryCall;

/** The response of a unary call; `timeoutMs` is its deadline. */
export async function unary<Request, Response>(
  method: UnaryMethod<Request, Response>,
  request: Request,
  { signal, timeoutMs = UNARY_TIMEOUT_MS }: { signal: AbortSignal; timeoutMs?: number },
): Promise<Response> {
  signal.throwIfAborted();
  let cancel = () => {};
  try {
    return await new Promise((resolve, reject) => {
      const options = { deadline: Date.now() + timeoutMs };
      const call = method(request, new Metadata(), options, (error, response) =>
        error === null ? resolve(response as Response) : reject(error),
      );
      cancel = () => call.cancel();
      signal.addEventListener("abort", cancel);
    });
  } catch (error) {
    throw translated(error, signal);
  } finally {
    signal.removeEventListener("abort", cancel);
  }
}

/** The messages of a server's stream. Leaving the loop cancels the call. */
export async function* streamed<Response>(
  open: () => ClientReadableStream<Response>,
  signal: AbortSignal,
): AsyncGenerator<Response, void> {
  signal.throwIfAborted();
  const call = open();
  const cancel = () => call.cancel();
  signal.addEventListener("abort", cancel);
  // A cancelled call reports so when the loop has gone, and nobody else listens.
  call.on("error", () => {});
  try {
    yield* call as AsyncIterable<Response>;
  } catch (error) {
    throw translated(error, signal);
  } finally {
    signal.removeEventListener("abort", cancel);
    cancel();
  }
}

function translated(error: unknown, signal: AbortSignal): unknown {
  if (signal.aborted) return signal.reason;
  return error instanceof Error && "metadata" in error ? fromStatus(error as Status) : error;
}
