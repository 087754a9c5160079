// A server that speaks the page's part of the API with canned answers, for tests and for work on
// the page without a model. What the last message contains chooses the answer.
//
//   node ui/tests/stand_in_server.mjs PAGE.html POLICY [PORT]
import { readFile } from "node:fs/promises";
import http from "node:http";
import { fileURLToPath } from "node:url";

const kHostile = [
  "<script>window.ran = 1</script>",
  '<img src=x onerror="window.ran = 2">',
  "[link](javascript:window.ran=3)",
  "[data](data:text/html,<script>window.ran=4</script>)",
  '<svg onload="window.ran = 5"></svg>',
  "![image](https://example.org/leak.png)",
  '<a href="#" onclick="window.ran = 6">click</a>',
  '```"><img src=x onerror="window.ran=7">\ncode\n```',
  "<iframe srcdoc='<script>parent.ran=8</script>'></iframe>",
].join("\n\n");

const kEssay = `Attention compares the current token's query with the key of every token before it, and
mixes their values by the result. Keys and values of old tokens never change, so they are kept:

- **without** the cache, each new token costs all of the previous ones again;
- **with** it, one row of keys and values is added per token and layer.

\`\`\`python
def step(cache, q, k, v):
    cache.append(k, v)  # one row per token
    scores = softmax(q @ cache.keys.T / sqrt(q.shape[-1]))
    return scores @ cache.values
\`\`\`

The price is memory: \`2 × layers × heads × head_dim\` numbers for each token of context.`;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export class StandIn {
  requests = []; // bodies, in order
  approvals = [];
  token = ""; // empty: none is asked for
  agent = true;
  #waiting = new Map(); // run/id → resolve
  #reads = 0;

  constructor(page, policy) {
    this.page = page;
    this.policy = policy;
    this.server = http.createServer((request, reply) => {
      this.#handle(request, reply).catch((error) => reply.destroy(error));
    });
  }

  async start(port = 0) {
    await new Promise((done) => this.server.listen(port, "127.0.0.1", done));
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }

  async #handle(request, reply) {
    const { pathname } = new URL(request.url, "http://localhost");
    const send = (status, type, body, headers = {}) =>
      reply.writeHead(status, { "Content-Type": type, ...headers }).end(body);
    const json = (status, value) => send(status, "application/json", JSON.stringify(value));
    const fail = (status, message) =>
      json(status, { error: { message, type: "error", param: null, code: null } });
    if (pathname === "/") {
      return send(200, "text/html; charset=utf-8", this.page, {
        "Content-Security-Policy": this.policy,
      });
    }
    if (this.token && request.headers.authorization !== `Bearer ${this.token}`) {
      return fail(401, "this server asks for a bearer token");
    }
    if (pathname === "/v1/models") return json(200, this.#models());
    if (pathname === "/metrics") return send(200, "text/plain", this.#metrics());
    if (pathname === "/report") {
      return send(200, "text/html", "<style>p{color:teal}</style><p>The fit report</p>");
    }
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = chunks.length ? JSON.parse(Buffer.concat(chunks)) : {};
    if (pathname === "/v1/agent/approvals") {
      this.approvals.push(body);
      this.#waiting.get(`${body.run}/${body.id}`)?.(body.approve);
      return json(200, { ok: true });
    }
    if (!["/v1/chat/completions", "/v1/agent/runs"].includes(pathname)) {
      return fail(404, "there is no such path");
    }
    this.requests.push({ path: pathname, ...body });
    const asked = body.messages.at(-1).content;
    if (asked.includes("overload")) return fail(503, "too many requests wait; try again later");
    if (pathname === "/v1/chat/completions" && body.stream !== true) {
      return json(200, { choices: [{ message: { content: `You said: ${asked}` } }] });
    }
    reply.writeHead(200, { "Content-Type": "text/event-stream" });
    const event = (value) => reply.write(`data: ${JSON.stringify(value)}\n\n`);
    if (pathname === "/v1/agent/runs") await this.#agent(event);
    else await this.#chat(asked, event, () => reply.destroyed);
    reply.end();
  }

  #models() {
    const model = (id, context) => ({
      id,
      object: "model",
      sluice: { loaded: true, context, parameters: 3e10, report: true, reasoning: true },
    });
    return {
      object: "list",
      data: [model("Qwen3-30B-A3B-fit-16GB", 262144), model("SmolLM2-135M-Instruct", 8192)],
      sluice: { agent: this.agent, agent_tools: ["search", "shell", "files"] },
    };
  }

  #metrics() {
    const n = ++this.#reads;
    const wave = Math.sin(n / 2);
    return [
      "# TYPE sluice_decode_tokens_per_second gauge",
      `sluice_decode_tokens_per_second ${(21 + 3 * wave).toFixed(2)}`,
      `sluice_resident_bytes ${Math.round(6.1e9 + 4e8 * wave)}`,
      "sluice_memory_limit_bytes 8000000000",
      `sluice_disk_read_bytes_total ${n * 2.4e9 + Math.round(7e8 * wave)}`,
      `sluice_experts_requested_total ${n * 1000}`,
      `sluice_experts_hit_total ${n * 870 + Math.round(20 * wave)}`,
      'sluice_requests_running{model="a"} 1',
      "sluice_requests_queued 0",
    ].join("\n");
  }

  async #chat(asked, event, gone) {
    const chunk = (delta, rest = {}) =>
      event({ object: "chat.completion.chunk", choices: [{ index: 0, delta, ...rest }] });
    const say = async (text) => {
      for (const word of text.match(/\S+\s*|\s+/g) ?? []) {
        if (gone()) return;
        chunk({ content: word });
        await pause(2);
      }
    };
    if (asked.includes("think")) chunk({ reasoning_content: "They ask about the cache." });
    if (asked.includes("forever")) {
      while (!gone()) {
        chunk({ content: "on " });
        await pause(15);
      }
    } else if (asked.includes("hostile")) {
      await say(kHostile);
    } else if (asked.includes("cache")) {
      await say(kEssay);
    } else if (asked.includes("break")) {
      chunk({ content: "Half" });
      return event({ error: { message: "the model's file could not be read" } });
    } else {
      await say(`You said: ${asked}`);
    }
    event({
      object: "chat.completion.chunk",
      choices: [{ index: 0, delta: {}, finish_reason: "stop" }],
      timings: { prompt_ms: 40, prompt_tokens: 20, generated_ms: 5000, generated_tokens: 117 },
    });
  }

  async #agent(send) {
    const event = (type, rest) => send({ object: "sluice.agent.event", type, ...rest });
    const run = `run-${this.requests.length}`;
    event("start", { run });
    event("text", { delta: "I will count the lines of the sources.\n\n" });
    const shown = "wc -l src/core/base/*.cpp";
    event("tool_request", { id: "1", tool: "shell", arguments: {}, shown, needs_approval: true });
    const allowed = await new Promise((done) => this.#waiting.set(`${run}/1`, done));
    const text = allowed ? " 1204 total" : "refused by the user";
    event("tool_result", { id: "1", ok: allowed, text });
    event("text", { delta: allowed ? "There are **1204** lines." : "I did not run it." });
    const sources = [
      { title: "Counting lines", url: "https://example.org/wc" },
      { title: "Hostile", url: "javascript:window.ran=9" },
    ];
    event("done", { finish_reason: "stop", usage: {}, sources });
  }
}

export async function standIn(pagePath, policyPath) {
  return new StandIn(await readFile(pagePath), await readFile(policyPath, "utf8"));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , page, policy, port] = process.argv;
  console.log(await (await standIn(page, policy)).start(Number(port ?? 0)));
}
