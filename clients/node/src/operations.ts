/** Operations: their progress as they run, and their end. */

import { type Client, streamed } from "./client.js";
import { ServiceError } from "./errors.js";
import { type Operation, OperationState, WatchOperationRequest } from "./gen/virtrpc/v1/operation.js";
import type { Print } from "./print.js";
import { resumed, Retries } from "./resume.js";

/**
 * Prints an operation's progress until it has SUCCEEDED, and returns it.
 *
 * The operation belongs to the daemon: a restart in between breaks the stream, not
 * the operation. Throws a ServiceError when it FAILED or was CANCELLED.
 */
export async function operationEnd(
  client: Client,
  operationId: string,
  { signal, print }: { signal: AbortSignal; print: Print },
): Promise<Operation> {
  const request = WatchOperationRequest.create({ operationId });
  const open = () => streamed(() => client.operations.watchOperation(request), signal);
  const retries = new Retries("WatchOperation", print, signal).progress();
  let told = "";
  for await (const { operation } of resumed(open, retries)) {
    if (operation === undefined) continue;
    const line = operationLine(operation);
    if (line !== told) print("operation", line);
    told = line;
    if (operation.done) return succeeded(operation);
  }
  throw new Error(`the stream of operation ${operationId} ended before the operation`);
}

function succeeded(operation: Operation): Operation {
  if (operation.state === OperationState.SUCCEEDED) return operation;
  const { error, operationId, verb } = operation;
  if (error === undefined) throw new Error(`${verb} ${operationId} ended without a reason`);
  throw new ServiceError(error);
}

function operationLine(operation: Operation): string {
  const state = OperationState[operation.state];
  const words = [operation.verb, state, `${operation.progressPercent}%`, operation.phase, operation.message];
  return words.filter((word) => word).join(" ");
}
