/**
 * What goes wrong, typed: one error for refused calls and for failed operations.
 *
 * A status brings its facts as google.rpc details in the trailer
 * `grpc-status-details-bin`, an operation as a `virtrpc.v1.Error`. Both become a
 * {@link ServiceError}, so that callers need not know which verb is an operation.
 */

import { status, type ServiceError as Status } from "@grpc/grpc-js";
import { BadRequest, ErrorInfo, PreconditionFailure, RetryInfo } from "./gen/google/rpc/error_details.js";
import { Status as RichStatus } from "./gen/google/rpc/status.js";
import { Error as Facts } from "./gen/virtrpc/v1/types.js";

const DETAILS_KEY = "grpc-status-details-bin";
const TYPE_PREFIX = "type.googleapis.com/google.rpc.";
/** Exit codes of refusals begin here; gRPC's codes are 1 to 16. As the `virtrpc` command has it. */
const FIRST_EXIT_CODE = 64;

/** Ends the controller with a sentence for people and an exit code. */
export class Failure extends Error {
  constructor(
    message: string,
    readonly exitCode = 1,
  ) {
    super(message);
  }
}

/** The service refused or failed to do something; `facts.reason` is the word for programs. */
export class ServiceError extends Failure {
  /**
   * @param facts - code, reason, message, metadata, and what was wrong with which field
   * @param retryAfterMs - least pause before the next try, as the service asks for
   */
  constructor(
    readonly facts: Facts,
    readonly retryAfterMs = 0,
  ) {
    super(facts.message, FIRST_EXIT_CODE + facts.code);
  }

  /** Name of the gRPC code and reason, e.g. `NOT_FOUND / IMAGE_NOT_FOUND`. */
  get title(): string {
    const code = status[this.facts.code] ?? `code ${this.facts.code}`;
    return this.facts.reason ? `${code} / ${this.facts.reason}` : code;
  }

  /**
   * Asking again may bring what this call did not.
   *
   * RESOURCE_EXHAUSTED alone does not say so: a host without room has it too.
   * CANCELLED that nobody here asked for is a connection cut from the other side.
   */
  get transient(): boolean {
    const { code, reason } = this.facts;
    return (
      code === status.UNAVAILABLE ||
      code === status.CANCELLED ||
      (code === status.RESOURCE_EXHAUSTED && ["WATCHER_TOO_SLOW", "OVERLOADED"].includes(reason))
    );
  }
}

/** The typed error of a call that ended with a status. */
export function fromStatus(ended: Status): ServiceError {
  const facts = Facts.create({ code: ended.code, message: ended.details });
  let retryAfterMs = 0;
  for (const { typeUrl, value } of detailsOf(ended)) {
    retryAfterMs = Math.max(retryAfterMs, merge(facts, typeUrl.replace(TYPE_PREFIX, ""), value));
  }
  return new ServiceError(facts, retryAfterMs);
}

/** The error as people read it: code, reason and message, then a line for each fact. */
export function described(error: unknown): string {
  if (!(error instanceof ServiceError)) {
    return error instanceof Failure ? error.message : String((error as Error)?.stack ?? error);
  }
  const { message, metadata, blockers } = error.facts;
  return [
    `${error.title}: ${message}`,
    ...blockers.map((b) => `  ${b.field || "host"}: ${b.message}${b.reason ? ` (${b.reason})` : ""}`),
    ...Object.entries(metadata).map(([key, value]) => `  ${key} = ${value}`),
  ].join("\n");
}

function detailsOf(ended: Status): RichStatus["details"] {
  const packed = ended.metadata.get(DETAILS_KEY)[0];
  if (!(packed instanceof Uint8Array)) return [];
  try {
    return RichStatus.decode(packed).details;
  } catch {
    return []; // a proxy's, or a defect: code and message still hold
  }
}

/** Adds one detail to the facts; returns the pause that it asks for, in milliseconds. */
function merge(facts: Facts, type: string, value: Uint8Array): number {
  switch (type) {
    case "ErrorInfo": {
      const { reason, metadata } = ErrorInfo.decode(value);
      Object.assign(facts, { reason, metadata });
      break;
    }
    case "BadRequest":
      for (const { field, reason, description } of BadRequest.decode(value).fieldViolations) {
        block(facts, { field, reason, message: description });
      }
      break;
    case "PreconditionFailure":
      for (const { subject, type: reason, description } of PreconditionFailure.decode(value).violations) {
        block(facts, { field: subject, reason, message: description });
      }
      break;
    case "RetryInfo": {
      const { seconds, nanos } = RetryInfo.decode(value).retryDelay ?? { seconds: 0n, nanos: 0 };
      return Number(seconds) * 1e3 + nanos / 1e6;
    }
  }
  return 0;
}

/** Adds a blocker; one that is told as both kinds of detail counts once. */
function block(facts: Facts, blocker: Facts["blockers"][number]): void {
  const same = facts.blockers.some((b) => b.field === blocker.field && b.reason === blocker.reason);
  if (!same) facts.blockers.push(blocker);
}
