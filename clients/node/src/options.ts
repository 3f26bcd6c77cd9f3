/** The command line. */

import { parseArgs } from "node:util";
import { Failure } from "./errors.js";
import { InstanceSpec } from "./gen/virtrpc/v1/spec.js";

export const USAGE = `Usage: node dist/controller.js --address ADDRESS (--image ID | --kernel ID | --watch) [OPTION…]

Watches the daemon's events, spawns an instance, follows its console until a line
matches, destroys it. Exit code: 0; 1 for other failures, 2 for a wrong command line,
64 + gRPC code for what the daemon refused, 130 when interrupted.

  --address ADDRESS    unix:/path or host:port   [default: $VIRTRPC_ADDRESS]
  --image ID           image of the root disk
  --kernel ID          kernel to boot directly, an image of the host's store
  --ramdisk ID         initial ramdisk of the kernel
  --kernel-args TEXT   command line of the kernel
  --name NAME          name of the instance      [default: made by the daemon]
  --vcpus N            vCPUs                     [default: 1]
  --memory MIB         memory in MiB             [default: 96]
  --until REGEXP       the line to wait for      [default: ready]
  --timeout SECONDS    until that line           [default: 300]
  --watch              only print the events of all instances, until interrupted
`;
const EXIT_USAGE = 2;

/** What the command line asks for. */
export interface Options {
  address: string;
  spec: InstanceSpec;
  until: RegExp;
  timeoutMs: number;
  watch: boolean;
  help: boolean;
}

/** Reads the command line; throws a Failure for one that is wrong. */
export function parsed(words: string[]): Options {
  const values = valuesOf(words);
  const address = values.address ?? process.env["VIRTRPC_ADDRESS"] ?? "";
  if (!values.help) {
    if (!address) throw wrong("--address is missing");
    if (!values.watch && !values.image && !values.kernel) throw wrong("--image or --kernel is missing");
  }
  return {
    address,
    spec: InstanceSpec.create({
      name: values.name ?? "",
      flavor: { vcpus: whole("--vcpus", values.vcpus), memoryMib: BigInt(whole("--memory", values.memory)) },
      image: {
        imageId: values.image ?? "",
        kernelImageId: values.kernel ?? "",
        ramdiskImageId: values.ramdisk ?? "",
        kernelArgs: values["kernel-args"] ?? "",
      },
    }),
    until: pattern(values.until),
    timeoutMs: whole("--timeout", values.timeout) * 1_000,
    watch: values.watch,
    help: values.help,
  };
}

function valuesOf(words: string[]) {
  try {
    return parseArgs({
      args: words,
      options: {
        address: { type: "string" },
        image: { type: "string" },
        kernel: { type: "string" },
        ramdisk: { type: "string" },
        "kernel-args": { type: "string" },
        name: { type: "string" },
        vcpus: { type: "string", default: "1" },
        memory: { type: "string", default: "96" },
        until: { type: "string", default: "ready" },
        timeout: { type: "string", default: "300" },
        watch: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    }).values;
  } catch (error) {
    throw wrong((error as Error).message);
  }
}

/** A whole number. Its range is the daemon's to judge, but for what the protocol cannot carry. */
function whole(name: string, text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw wrong(`${name}: ${text} is not a whole number`);
  return Number(text);
}

function pattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw wrong((error as Error).message);
  }
}

function wrong(message: string): Failure {
  return new Failure(`${message}\n\n${USAGE}`, EXIT_USAGE);
}
