/** Output: one line a fact, with where it came from in the first column. */

import { stripVTControlCharacters } from "node:util";

/** Prints a line; `source` is "event", "operation", "console", … */
export type Print = (source: string, text: string) => void;

const SOURCE_COLUMNS = 10;
const CONTROL_CHARACTERS = /[\x00-\x08\x0a-\x1f\x7f-\x9f]/g;

/** Text that a terminal shows and does not obey: a guest may print what it likes. */
export function harmless(text: string): string {
  return stripVTControlCharacters(text).replace(CONTROL_CHARACTERS, "");
}

/** Prints to standard output. */
export const toStdout: Print = (source, text) => {
  process.stdout.write(`${source.padEnd(SOURCE_COLUMNS)} ${harmless(text)}\n`);
};
