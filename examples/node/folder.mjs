// A folder of JPEG files, each answered: one line for each object found.
//
//     npm install
//     node folder.mjs pictures/ --server 127.0.0.1:8001 --model detector
//
// Delivery "every": no frame is replaced by a newer one, and the server stops reading when it has enough. A frame without an
// answer (the server went away, or had no room) is sent again on the next call, under its old number.

import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const MOST_TRIES = 6; // calls in a row without a single answer
const PAUSE_MS = 250; // before the second of them, twice as long before each later one
const TRY_AGAIN = new Set(["STATUS_OVERLOADED", "STATUS_CANCELLED"]); // not executed, and not the frame's fault
const TRY_CALL_AGAIN = new Set([grpc.status.UNAVAILABLE, grpc.status.RESOURCE_EXHAUSTED]);

const protos = fileURLToPath(new URL("../../protos", import.meta.url));
const frames = loadSync("forebay/v1/frames.proto", {
  includeDirs: [protos],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
});
const { FrameInference } = grpc.loadPackageDefinition(frames).forebay.v1;

/** Send frames on one call. Return the numbers of those that need another call, the pause before it, and the error. */
async function oneCall(client, model, files, numbers, counts) {
  const unanswered = new Set(numbers);
  const call = client.Stream();
  let isLeaving = false;
  let pauseMs = 0;

  async function send() {
    call.write({
      open: {
        model,
        stream_id: "node example",
        encoding: "ENCODING_JPEG",
        delivery: "DELIVERY_EVERY",
        resume_from: numbers[0] > 1 ? numbers[0] : undefined, // earlier frames have their answers
      },
    });
    for (const number of numbers) {
      const payload = await readFile(files[number - 1]);
      if (isLeaving || call.destroyed) break;
      if (!call.write({ frame: { seq: number, payload } })) await once(call, "drain");
    }
    call.end(); // half-close: every frame sent so far is still answered
  }

  const sending = send().catch((error) => call.destroy(error));
  let failure = null;
  try {
    for await (const message of call) {
      if (message.reconnect) {
        isLeaving = true; // the server drains, or wants the stream elsewhere
      } else if (message.result) {
        const { seq, status } = message.result;
        if (TRY_AGAIN.has(status.code)) {
          isLeaving = true;
          pauseMs = Math.max(pauseMs, status.retry_after_ms);
          continue;
        }
        unanswered.delete(seq);
        counts.set(status.code, (counts.get(status.code) ?? 0) + 1);
        print(path.basename(files[seq - 1]), message.result);
      } // else: opened, heartbeat
    }
  } catch (error) {
    failure = error;
  }
  await sending;
  return { numbers: [...unanswered], pauseMs, failure };
}

function print(name, { seq, status, detections }) {
  const start = `frame ${seq} (${name}):`;
  if (status.code !== "STATUS_OK") {
    console.log(`${start} ${status.code.replace("STATUS_", "")}: ${status.message}`);
  } else if (detections.length === 0) {
    console.log(`${start} nothing`);
  }
  for (const { label, score, box_pixels: box } of detections) {
    const corners = [box.x_min, box.y_min, box.x_max, box.y_max].map(Math.round).join(", ");
    console.log(`${start} ${label} ${score.toFixed(2)} at (${corners})`);
  }
}

/** Send every file until it has its answer. Return whether all were OK. */
async function sendAll(client, model, files) {
  const counts = new Map();
  let numbers = files.map((_, index) => index + 1);
  let tries = 0;
  while (numbers.length > 0) {
    const before = numbers.length;
    const ended = await oneCall(client, model, files, numbers, counts);
    if (ended.failure && !TRY_CALL_AGAIN.has(ended.failure.code)) throw ended.failure;
    numbers = ended.numbers;
    tries = numbers.length < before ? 0 : tries + 1;
    if (tries === MOST_TRIES) throw ended.failure ?? new Error("the server had no room for a single frame");
    if (numbers.length > 0) await sleep(Math.max(ended.pauseMs, PAUSE_MS * 2 ** tries));
  }
  const total = [...counts].map(([code, count]) => `${count} ${code.replace("STATUS_", "")}`).join(", ");
  console.error(`${files.length} frames: ${total}`);
  return counts.get("STATUS_OK") === files.length;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    server: { type: "string", default: "127.0.0.1:8001" },
    model: { type: "string", default: "detector" },
  },
});
const folder = positionals[0];
if (!folder) {
  console.error("usage: node folder.mjs FOLDER [--server HOST:PORT] [--model NAME]");
  process.exit(2);
}
// With TLS: grpc.credentials.createSsl(await readFile("ca.pem")).
const client = new FrameInference(values.server, grpc.credentials.createInsecure());
try {
  const names = (await readdir(folder)).filter((name) => /\.jpe?g$/i.test(name)).sort();
  if (names.length === 0) throw new Error(`${folder} has no .jpg or .jpeg files`);
  const files = names.map((name) => path.join(folder, name));
  process.exitCode = (await sendAll(client, values.model, files)) ? 0 : 1;
} catch (error) {
  console.error(error.details || error.message); // gRPC's errors have details, without the code
  process.exitCode = 1;
} finally {
  client.close();
}
