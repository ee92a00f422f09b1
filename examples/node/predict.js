#!/usr/bin/env node
// Asks a running acapruntime what a picture shows. README.md one folder up says how to run it.

import { existsSync, readFileSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import bmp from "bmp-js";
import jpeg from "jpeg-js";
import { PNG } from "pngjs";

const USAGE = `usage: node predict.js [options] MODEL PICTURE

MODEL is a name that the server knows, or on its unix socket the path of a model file; PICTURE is BMP, PNG or JPEG.

  --address ADDRESS          unix:///PATH or HOST:PORT [unix:///tmp/acap-runtime.sock]
  --root-certificate FILE    PEM; turns TLS on
  --labels FILE              names of the classes, one a line
  --top N                    classes to print [5]
  --timeout SECONDS          [60]
  --protos FOLDER            [../protos]`;

const OPTIONS = {
  address: { type: "string", default: "unix:///tmp/acap-runtime.sock" },
  "root-certificate": { type: "string" },
  labels: { type: "string" },
  top: { type: "string", default: "5" },
  timeout: { type: "string", default: "60" },
  protos: { type: "string", default: fileURLToPath(new URL("../protos", import.meta.url)) },
  help: { type: "boolean" },
};

// Of the scores that classifiers give.
const SCORES = {
  DT_FLOAT: (bytes) => Array.from({ length: bytes.length / 4 }, (_, position) => bytes.readFloatLE(4 * position)),
  DT_UINT8: (bytes) => Array.from(bytes),
  DT_INT8: (bytes) => Array.from(new Int8Array(bytes)),
};

async function main() {
  const { values: options, positionals } = parseArgs({ options: OPTIONS, allowPositionals: true });
  if (options.help) {
    console.log(USAGE);
    return;
  }
  if (positionals.length !== 2) {
    throw new Error(USAGE);
  }
  const [model, picture] = positionals;
  const { width, height, pixels } = decode(readFileSync(picture));
  const labels = options.labels ? readFileSync(options.labels, "utf8").trimEnd().split(/\r?\n/) : [];
  const client = connect(options);
  try {
    const timeoutSeconds = number(options, "timeout");
    await ready(client, timeoutSeconds, options);
    const response = await predict(client, timeoutSeconds, {
      modelSpec: { name: isFile(model) ? resolve(model) : model },
      inputs: {
        data: {
          dtype: "DT_UINT8",
          tensorShape: { dim: [1, height, width, 3].map((size) => ({ size })) },
          tensorContent: pixels,
        },
      },
    });
    show(response, labels, number(options, "top"));
  } finally {
    client.close();
  }
}

function number(options, name) {
  const value = Number(options[name]);
  if (!(value > 0)) {
    throw new Error(`--${name}: expected a number above 0, got ${options[name]}`);
  }
  return value;
}

// Waits until the server is up; a wrong address and a refused certificate end here, after the time-out.
function ready(client, timeoutSeconds, options) {
  const tls = options["root-certificate"] ? "with" : "without";
  const problem = new Error(`nothing answers at ${options.address} ${tls} TLS: is the server running there?`);
  return new Promise((succeed, fail) => {
    client.waitForReady(Date.now() + 1000 * timeoutSeconds, (error) => (error ? fail(problem) : succeed()));
  });
}

function isFile(path) {
  return existsSync(path) && statSync(path).isFile();
}

function connect(options) {
  const definition = protoLoader.loadSync("tensorflow_serving/apis/prediction_service.proto", {
    includeDirs: [options.protos],
    enums: String,
  });
  const { PredictionService } = grpc.loadPackageDefinition(definition).tensorflow.serving;
  const limits = { "grpc.max_send_message_length": -1, "grpc.max_receive_message_length": -1 };
  const root = options["root-certificate"];
  const address = options.address.startsWith("/") ? `unix://${options.address}` : options.address;
  if (!root) {
    return new PredictionService(address, grpc.credentials.createInsecure(), limits);
  }
  // A unix socket has no host name that a certificate could be checked against.
  const name = { "grpc.default_authority": "localhost", "grpc.ssl_target_name_override": "localhost" };
  return new PredictionService(address, grpc.credentials.createSsl(readFileSync(root)), { ...limits, ...name });
}

function predict(client, timeoutSeconds, request) {
  return new Promise((succeed, fail) => {
    const options = { deadline: Date.now() + 1000 * timeoutSeconds };
    client.predict(request, options, (error, response) => (error ? fail(error) : succeed(response)));
  });
}

// Width, height and RGB bytes of an image file.
function decode(file) {
  const { width, height, data, red } = decodeWithAlpha(file);
  const pixels = Buffer.alloc(3 * width * height);
  for (let pixel = 0; pixel < width * height; pixel += 1) {
    for (let channel = 0; channel < 3; channel += 1) {
      pixels[3 * pixel + channel] = data[4 * pixel + (red === 0 ? channel : red - channel)];
    }
  }
  return { width, height, pixels };
}

// `red` is the position of red among a pixel's four bytes; green and blue come after it, in bmp-js before it.
function decodeWithAlpha(file) {
  if (file.subarray(0, 2).toString("latin1") === "BM") {
    return { ...bmp.decode(file), red: 3 };
  }
  if (file.subarray(1, 4).toString("latin1") === "PNG") {
    return { ...PNG.sync.read(file), red: 0 };
  }
  if (file[0] === 0xff && file[1] === 0xd8) {
    return { ...jpeg.decode(file), red: 0 };
  }
  throw new Error("expected a picture in BMP, PNG or JPEG");
}

// Prints the likeliest classes.
function show(response, labels, count) {
  const outputs = Object.entries(response.outputs);
  if (outputs.length !== 1) {
    throw new Error(`expected a classifier with one output, got ${outputs.map(([name]) => name).join(", ")}`);
  }
  const [[, { dtype, tensorContent }]] = outputs;
  if (!(dtype in SCORES)) {
    throw new Error(`expected scores of ${Object.keys(SCORES).join(", ")}, got ${dtype}`);
  }
  const scores = SCORES[dtype](tensorContent);
  const best = [...scores.keys()].sort((a, b) => scores[b] - scores[a]);
  for (const number of best.slice(0, count)) {
    const score = Number(scores[number].toPrecision(5));
    console.log(`${String(number).padStart(5)}  ${String(score).padStart(7)}  ${labels[number] ?? ""}`.trimEnd());
  }
}

main().catch((error) => {
  const isStatus = error.details !== undefined;
  console.error(isStatus ? `${grpc.status[error.code]}: ${error.details}` : error.message);
  process.exitCode = 1;
});
