// OpenAI's own JavaScript client against a served demo model: chat, streams, tools, JSON by schema,
// responses, embeddings, cancellation, errors. SLUICE_BINARY and SLUICE_DEMO_MODEL name what is
// served; without a model the test skips. SLUICE_SERVED_SHARE: as in tests/e2e/server.py.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { after, before, test } from "node:test";
import OpenAI from "openai";

const program = process.env.SLUICE_BINARY ?? "";
const model = process.env.SLUICE_DEMO_MODEL ?? "";
if (!existsSync(program) || !existsSync(model)) {
  console.log("SLUICE_SKIP: the program or the demo model is not there; run scripts/demo_model");
  process.exit(0);
}
const share = Number(process.env.SLUICE_SERVED_SHARE ?? 0);
const limit = Math.floor(share * statSync(model).size);
const name = model.replace(/^.*\//, "").replace(/\.gguf$/, "");
const messages = [{ role: "user", content: "What is the capital of France?" }];
const schema = {
  type: "object",
  properties: { city: { type: "string", maxLength: 12 } },
  required: ["city"],
  additionalProperties: false,
};
const tool = { name: "weather", description: "Tells the weather.", parameters: schema };

let server;
let client;
let ended;

// The address that the program prints as JSON once it listens.
async function address(child) {
  let text = "";
  for await (const piece of child.stdout) {
    text += piece;
    try {
      return JSON.parse(text).url;
    } catch {
      // More of it is to come.
    }
  }
  throw new Error(`the server did not start: ${text}`);
}

before(async () => {
  const memory = share > 0 ? ["--context", "512", "--memory", `${limit}B`] : ["--context", "1024"];
  const options = ["--port", "0", "--json", "--parallel", "2", ...memory];
  server = spawn(program, ["serve", model, ...options], { stdio: ["ignore", "pipe", "ignore"] });
  ended = new Promise((resolve) => server.once("exit", (code) => resolve(code)));
  const url = await address(server);
  client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
});

after(async () => {
  if (share > 0) assert.ok((await metric("disk_read_bytes_total")) >= statSync(model).size - limit);
  server.kill("SIGTERM");
  assert.equal(await ended, 0);
});

const chat = (options = {}) =>
  client.chat.completions.create({ model: name, messages, temperature: 0, max_tokens: 24, ...options });

test("chat, whole and streamed", async () => {
  const whole = await chat();
  const said = whole.choices[0].message.content;
  assert.ok(said.length > 0);
  assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens);
  let streamed = "";
  let usage = null;
  for await (const chunk of await chat({ stream: true, stream_options: { include_usage: true } })) {
    streamed += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(streamed, said);
  assert.deepEqual(usage.completion_tokens, whole.usage.completion_tokens);
});

test("tools", async () => {
  const options = {
    tools: [{ type: "function", function: tool }],
    tool_choice: { type: "function", function: { name: "weather" } },
    max_tokens: 100,
  };
  const call = (await chat(options)).choices[0].message.tool_calls[0];
  assert.equal(call.function.name, "weather");
  assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ["city"]);
  const stream = client.chat.completions.stream({ model: name, messages, temperature: 0, ...options });
  const final = await stream.finalMessage();
  assert.equal(final.tool_calls[0].function.arguments, call.function.arguments);
});

test("JSON by schema", async () => {
  const answer = await chat({
    response_format: { type: "json_schema", json_schema: { name: "place", schema, strict: true } },
    max_tokens: 100,
  });
  assert.deepEqual(Object.keys(JSON.parse(answer.choices[0].message.content)), ["city"]);
});

test("responses", async () => {
  const input = messages[0].content;
  const options = { model: name, input, temperature: 0, max_output_tokens: 24 };
  const response = await client.responses.create(options);
  assert.equal(response.output_text, (await chat()).choices[0].message.content);
  let text = "";
  const types = new Set();
  for await (const event of await client.responses.create({ ...options, stream: true })) {
    types.add(event.type);
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  assert.equal(text, response.output_text);
  assert.ok(types.has("response.created") && types.has("response.output_item.done"));
  const next = await client.responses.create({
    ...options,
    input: "And of Italy?",
    previous_response_id: response.id,
    tools: [{ type: "function", ...tool, strict: true }],
    tool_choice: { type: "function", name: "weather" },
    max_output_tokens: 100,
  });
  assert.equal(next.output.at(-1).type, "function_call");
  assert.equal(next.output.at(-1).name, "weather");
});

test("embeddings", async () => {
  const input = ["a cat", "a dog"];
  const { data } = await client.embeddings.create({ model: name, input });
  const numbers = await client.embeddings.create({ model: name, input, encoding_format: "float" });
  assert.equal(data.length, 2);
  assert.equal(data[0].embedding.length, numbers.data[0].embedding.length);
  assert.ok(data[0].embedding.every((value, i) => Math.abs(value - numbers.data[0].embedding[i]) < 1e-6));
});

async function metric(which) {
  const reply = await fetch(client.baseURL.replace(/\/v1$/, "/metrics"));
  const line = (await reply.text()).split("\n").find((one) => one.startsWith(`sluice_${which} `));
  return Number(line.split(" ")[1]);
}

test("cancellation", async () => {
  const before = await metric("generated_tokens_total");
  const stream = await chat({ stream: true, max_tokens: 900, ignore_eos: true });
  let seen = 0;
  for await (const _ of stream) {
    seen += 1;
    if (seen === 3) stream.controller.abort();
  }
  while ((await metric("requests_running")) > 0) await new Promise((resolve) => setTimeout(resolve, 50));
  assert.ok((await metric("generated_tokens_total")) - before < 900);
});

test("errors", async () => {
  await assert.rejects(chat({ model: "other" }), OpenAI.NotFoundError);
  await assert.rejects(chat({ temperature: -1 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "temperature");
    return true;
  });
  await assert.rejects(chat({ messages: [] }), OpenAI.BadRequestError);
  assert.deepEqual((await client.models.list()).data.map((one) => one.id), [name]);
});
