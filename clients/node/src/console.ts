/** The console: followed by offset, over restarts of the daemon, until a line matches. */

import { type Client, streamed } from "./client.js";
import { Failure } from "./errors.js";
import { StreamConsoleOutputRequest } from "./gen/virtrpc/v1/console.js";
import { harmless, type Print } from "./print.js";
import { resumed, Retries } from "./resume.js";

/** A longer line is broken here: a guest must not fill the controller's memory. */
const LONGEST_LINE_CHARACTERS = 16_384;
/** After so long without a byte (the server's heartbeat) an unfinished line is a prompt. */
const PROMPT_AFTER = { seconds: 0n, nanos: 500_000_000 };

/**
 * Prints an instance's console from its first byte until a line matches, and returns
 * that line; also a last line without a newline, when the guest has fallen silent.
 *
 * A byte's offset never changes, so a broken stream is resumed after the last byte
 * that came, of the same log.
 */
export async function consoleUntil(
  client: Client,
  { instanceId, until }: { instanceId: string; until: RegExp },
  { signal, print }: { signal: AbortSignal; print: Print },
): Promise<string> {
  let offset = 0n;
  let logId = "";
  const lines = new Lines();
  const open = () => {
    const start = { $case: "offset" as const, value: offset };
    const request = StreamConsoleOutputRequest.create({
      instanceId,
      start,
      follow: true,
      heartbeat: PROMPT_AFTER,
      logId,
    });
    return streamed(() => client.consoles.streamConsoleOutput(request), signal);
  };
  const retries = new Retries("StreamConsoleOutput", print, signal).progress();
  for await (const response of resumed(open, retries)) {
    logId ||= response.logId;
    switch (response.message?.$case) {
      case "data": {
        const { offset: begin, data } = response.message.value;
        offset = begin + BigInt(data.length);
        const complete = lines.completedBy(data);
        complete.forEach((line) => print("console", line));
        const found = complete.find((line) => until.test(line));
        if (found !== undefined) return found;
        break;
      }
      case "heartbeat":
        if (until.test(lines.unfinished)) {
          print("console", lines.unfinished);
          return lines.unfinished;
        }
        break;
      case "expired": {
        const { begin, end } = response.message.value;
        offset = end;
        print("console", `(${end - begin} bytes have expired)`);
        break;
      }
      case "moved":
        throw new Failure(`the console has moved to ${response.message.value.hostUri}`);
    }
  }
  throw new Failure(`the console ended before ${until} appeared`);
}

/** Bytes in pieces of any size, as lines of text without control sequences. */
export class Lines {
  // Keeps the first bytes of a character whose others are in the next piece.
  private readonly decoder = new TextDecoder();
  private rest = "";

  /** What was written since the last newline. */
  get unfinished(): string {
    return harmless(this.rest);
  }

  /** The lines that these bytes complete. */
  completedBy(bytes: Uint8Array): string[] {
    const lines = (this.rest + this.decoder.decode(bytes, { stream: true })).split("\n");
    this.rest = lines.pop() ?? "";
    if (this.rest.length > LONGEST_LINE_CHARACTERS) {
      lines.push(this.rest);
      this.rest = "";
    }
    return lines.map(harmless);
  }
}
