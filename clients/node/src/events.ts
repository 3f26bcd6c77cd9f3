/**
 * Events of the host: a snapshot, then everything that follows, over restarts of the
 * daemon and cuts for slowness (WATCHER_TOO_SLOW), without a gap that is not told.
 */

import { type Client, streamed } from "./client.js";
import { type Event, type EventCursor, EventType, WatchEventsRequest } from "./gen/virtrpc/v1/event.js";
import { OperationState } from "./gen/virtrpc/v1/operation.js";
import { PowerState } from "./gen/virtrpc/v1/types.js";
import type { Print } from "./print.js";
import { resumed, Retries } from "./resume.js";

/** What to watch, and until when. */
export interface Watching {
  /** Only events of these instances, besides those of the host; empty: of all. */
  instanceIds: string[];
  /** Where an earlier watch stopped; without it a snapshot of all instances comes first. */
  after?: EventCursor;
  signal: AbortSignal;
  print: Print;
}

/**
 * Snapshot and events, in order and each once.
 *
 * The cursor moves when the caller comes back for the next event: a controller that
 * stores it, to survive its own restart, does so when it has dealt with the event.
 */
export async function* watchEvents(
  client: Client,
  { instanceIds, signal, print, ...watching }: Watching,
): AsyncGenerator<Event, void> {
  let after = watching.after;
  let snapshotDue = after === undefined;
  const open = () => {
    const request = WatchEventsRequest.create({ after, snapshot: true, instanceIds });
    return streamed(() => client.events.watchEvents(request), signal);
  };
  for await (const { event } of resumed(open, new Retries("WatchEvents", print, signal))) {
    if (event === undefined) continue;
    if (event.type !== EventType.HEARTBEAT) yield event;
    // After a GAP comes a new snapshot. One that breaks off is asked for again as a
    // whole, so until its end the cursor stays where it was.
    if (event.type === EventType.GAP) snapshotDue = true;
    if (event.type === EventType.SNAPSHOT_END) snapshotDue = false;
    if (!snapshotDue) after = event.cursor;
  }
}

/** A watch that runs beside other work and prints every event. */
export class EventWatch {
  /** The snapshot is complete: whatever happens from now on is seen. */
  readonly established: Promise<void>;
  /** An instance was deleted, or a GAP may have swallowed that. */
  readonly deleted: Promise<void>;
  /** It has ended; rejects with the error that ended it. */
  readonly ended: Promise<void>;
  private readonly told = new Map<EventType, () => void>();

  constructor(client: Client, watching: Watching) {
    const established = this.first(EventType.SNAPSHOT_END);
    this.deleted = this.first(EventType.DELETED, EventType.GAP);
    this.ended = this.run(client, watching);
    this.established = Promise.race([established, this.ended]);
    this.established.catch(() => {}); // told by `ended`, where nobody waits for this one
  }

  private first(...types: EventType[]): Promise<void> {
    return new Promise((resolve) => types.forEach((type) => this.told.set(type, resolve)));
  }

  private async run(client: Client, watching: Watching): Promise<void> {
    for await (const event of watchEvents(client, watching)) {
      watching.print("event", eventLine(event));
      this.told.get(event.type)?.();
    }
  }
}

/** An event in one line, its sequence first. */
export function eventLine(event: Event): string {
  const operation = event.operation;
  const words = [
    `#${event.cursor?.sequence}`,
    EventType[event.type],
    event.instanceName,
    event.powerState !== PowerState.UNSPECIFIED ? PowerState[event.powerState] : "",
    operation ? `${operation.verb} ${OperationState[operation.state]}` : "",
    event.detail,
    event.lost > 0n ? `${event.lost} events lost` : "",
  ];
  return words.filter((word) => word).join(" ");
}
