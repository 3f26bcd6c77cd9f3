/** The two mutations of this controller, as an orchestrator should call them: repeatable. */

import { randomUUID } from "node:crypto";
import { type Client, unary } from "./client.js";
import {
  DestroyInstanceRequest,
  type DestroyInstanceResponse,
  Instance,
  SpawnInstanceRequest,
} from "./gen/virtrpc/v1/instance.js";
import type { InstanceSpec } from "./gen/virtrpc/v1/spec.js";
import { operationEnd } from "./operations.js";
import type { Print } from "./print.js";
import { retried, Retries } from "./resume.js";

const DESTROY_TIMEOUT_MS = 60_000;

interface Running {
  signal: AbortSignal;
  print: Print;
}

/**
 * Spawns an instance and waits until its vCPUs run.
 *
 * The request_id makes repeats after a lost answer safe: they find the operation that
 * the first one began.
 */
export async function spawn(
  client: Client,
  { instanceId, spec }: { instanceId: string; spec: InstanceSpec },
  { signal, print }: Running,
): Promise<Instance> {
  const request = SpawnInstanceRequest.create({ instanceId, spec, requestId: randomUUID() });
  const method = client.instances.spawnInstance.bind(client.instances);
  const operation = await retried(
    () => unary(method, request, { signal }),
    new Retries("SpawnInstance", print, signal),
  );
  const ended = await operationEnd(client, operation.operationId, { signal, print });
  return Instance.decode(ended.result?.value ?? new Uint8Array());
}

/**
 * Destroys an instance with its disks; cancels a spawn that still runs.
 *
 * Succeeds when there is none, so it may follow whatever came of the spawn.
 */
export async function destroy(
  client: Client,
  instanceId: string,
  { signal, print }: Running,
): Promise<DestroyInstanceResponse> {
  const request = DestroyInstanceRequest.create({
    instanceId,
    destroyDisks: true,
    destroySecrets: true,
    requestId: randomUUID(),
  });
  const method = client.instances.destroyInstance.bind(client.instances);
  return retried(
    () => unary(method, request, { signal, timeoutMs: DESTROY_TIMEOUT_MS }),
    new Retries("DestroyInstance", print, signal),
  );
}
