// Generates src/gen from the contract: messages and stubs for @grpc/grpc-js, by ts-proto.
//
// protoc and buf/validate/validate.proto are those that make the Python stubs (see
// protos/generate.py; PYTHON names another interpreter than python3), google/rpc's
// error details come from the package google-proto-files.

import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const PROTOS = join(HERE, "..", "..", "protos");
const OUT = join(HERE, "src", "gen");
const MODULES = join(HERE, "node_modules");

const TOOLS = "import generate; print(generate.tool_python()); print(generate.include_folder())";
const OPTIONS = {
  outputServices: "grpc-js",
  outputJsonMethods: false,
  // Imported files are generated only when listed below: not the validation rules.
  emitImportedFiles: false,
  esModuleInterop: true,
  importSuffix: ".js",
  // 64-bit counters exceed what a number holds exactly; ts-proto would throw on them.
  forceLong: "bigint",
  oneof: "unions-value",
  removeEnumPrefix: true,
  unrecognizedEnum: false,
  useExactTypes: false,
};

function tools() {
  const lines = execFileSync(process.env.PYTHON ?? "python3", ["-c", TOOLS], {
    cwd: PROTOS,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [python, validate] = lines.trim().split("\n");
  return { python, validate };
}

function contract() {
  const names = readdirSync(join(PROTOS, "virtrpc", "v1"));
  return names.filter((name) => name.endsWith(".proto")).map((name) => `virtrpc/v1/${name}`);
}

const { python, validate } = tools();
rmSync(OUT, { recursive: true, force: true });
mkdirSync(OUT, { recursive: true });
execFileSync(
  python,
  [
    "-m",
    "grpc_tools.protoc",
    ...[PROTOS, validate, join(MODULES, "google-proto-files")].map((folder) => `-I${folder}`),
    `--plugin=protoc-gen-ts_proto=${join(MODULES, ".bin", "protoc-gen-ts_proto")}`,
    `--ts_proto_out=${OUT}`,
    `--ts_proto_opt=${Object.entries(OPTIONS).map(([name, value]) => `${name}=${value}`).join()}`,
    ...contract(),
    "google/protobuf/any.proto",
    "google/protobuf/duration.proto",
    "google/protobuf/timestamp.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
  ],
  { stdio: "inherit" },
);
