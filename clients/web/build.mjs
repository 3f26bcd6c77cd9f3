// Puts the pages of the web console together: build.mjs FOLDER.
//
// There is no bundle: browsers load the modules of the packages as they are, from the
// daemon. FOLDER has console.html, and below assets/ all else, licences included.

import { cp, mkdir, readdir, rename, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const packages = join(here, "node_modules");
const FILES = {
  "@novnc/novnc": ["LICENSE.txt", "core", "vendor"],
  "@xterm/xterm": ["LICENSE", "css/xterm.css", "lib/xterm.mjs"],
  "@xterm/addon-fit": ["LICENSE", "lib/addon-fit.mjs"],
};

async function build(target) {
  const fresh = `${target}.new`;
  await rm(fresh, { recursive: true, force: true });
  await mkdir(join(fresh, "assets"), { recursive: true });
  for (const [name, files] of Object.entries(FILES)) {
    for (const file of files) {
      const place = join(fresh, "assets", name.replace("@", ""), file);
      await mkdir(dirname(place), { recursive: true });
      await cp(join(packages, name, file), place, { recursive: true });
    }
  }
  for (const file of await readdir(join(here, "src"))) {
    const folder = file.endsWith(".html") ? fresh : join(fresh, "assets");
    await cp(join(here, "src", file), join(folder, file));
  }
  await rm(target, { recursive: true, force: true });
  await rename(fresh, target);
}

const target = process.argv[2];
if (!target) {
  console.error("usage: node build.mjs FOLDER");
  process.exit(2);
}
await build(resolve(target));
