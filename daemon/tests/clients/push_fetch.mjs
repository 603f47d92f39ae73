// Pushes with Node's fetch. Arguments: the daemon's address, a queue. Prints the payload of each push on a line.
import assert from "node:assert";

const [base, queue] = process.argv.slice(2);
const url = `${base}/push/${queue}`;

async function push(payload, options) {
  const response = await fetch(url, { method: "POST", ...options });
  const answer = await response.json();
  assert.strictEqual(response.status, 201, JSON.stringify(answer));
  assert.strictEqual(answer.pushed, true);
  console.log(JSON.stringify(payload));
}

assert.strictEqual((await (await fetch(`${base}/health`)).json()).status, "healthy");
assert.strictEqual(await (await fetch(`${base}/health`, { method: "HEAD" })).text(), "");

const whole = { by: "a string", text: "é😀\n" };
await push(whole, { body: JSON.stringify(whole), headers: { "Content-Type": "application/json" } });

// fetch sends a stream in chunks.
const streamed = { by: "a stream" };
const parts = JSON.stringify(streamed).split("");
const body = new ReadableStream({
  pull(controller) {
    parts.length ? controller.enqueue(new TextEncoder().encode(parts.shift())) : controller.close();
  },
});
await push(streamed, { body, duplex: "half" });

// In parallel, over as many connections as fetch opens.
const many = Array.from({ length: 50 }, (_, n) => ({ by: "at once", n }));
await Promise.all(many.map((payload) => push(payload, { body: JSON.stringify(payload) })));

const refused = await fetch(url, { method: "POST", body: "not JSON" });
assert.strictEqual(refused.status, 400);
assert.strictEqual((await refused.json()).code, "malformed_json");
