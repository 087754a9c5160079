import { expect, it } from "vitest";
import { bytes, parseMetrics, sample } from "../src/api/metrics";
import { applyAgentEvent, applyChunk, decided } from "../src/chat/answer";
import { requestBody } from "../src/chat/request";
import { kDefaults, type Message } from "../src/chat/types";

const empty: Message = { id: "1", role: "assistant", content: "" };
const delta = (part: object, rest: object = {}): object => ({ choices: [{ delta: part, ...rest }] });

it("a stream becomes a message", () => {
  const message = [
    delta({ role: "assistant" }),
    delta({ reasoning_content: "Hm" }),
    delta({ content: "Yes" }),
    delta({ content: "." }),
    { ...delta({}, { finish_reason: "length" }), timings: { generated_tokens: 4, generated_ms: 500 } },
    { choices: [], usage: { total_tokens: 9 } },
  ].reduce(applyChunk, empty);
  expect(message).toEqual({
    ...empty, reasoning: "Hm", content: "Yes.",
    note: "The answer reached the token limit · 4 tokens, 8.0 tokens/s",
  });
});

it("what is no chunk changes nothing, and an error is told", () => {
  for (const odd of [null, 7, [], {}, { choices: 1 }, { choices: [null] }]) {
    expect(applyChunk(empty, odd)).toEqual(empty);
  }
  expect(applyChunk(empty, { error: { message: "no disk" } }).error).toBe("no disk");
});

it("a run's events become steps", () => {
  const asked = { type: "tool_request", id: "t", tool: "shell", shown: "ls", needs_approval: true };
  let message = applyAgentEvent(empty, asked);
  expect(message.steps?.[0]?.state).toBe("asking");
  const refused = applyAgentEvent(decided(message, "t", false), { type: "tool_result", id: "t", ok: false });
  expect(refused.steps?.[0]?.state).toBe("refused");
  message = decided(message, "t", true);
  expect(message.steps?.[0]?.state).toBe("running");
  message = applyAgentEvent(message, { type: "tool_result", id: "t", ok: true, text: "a b" });
  expect(message.steps?.[0]).toMatchObject({ state: "done", result: "a b" });
  expect(applyAgentEvent(message, { type: "unheard of" })).toBe(message);
});

it("a request has what was said and what was set", () => {
  const said: Message[] = [
    { id: "1", role: "user", content: "hi" },
    { id: "2", role: "assistant", content: "hello", reasoning: "secret" },
    { id: "3", role: "assistant", content: "", error: "gone" },
  ];
  expect(requestBody(said, { ...kDefaults, model: "m", seed: 0, thinking: true })).toEqual({
    model: "m", seed: 0, chat_template_kwargs: { enable_thinking: true },
    messages: [{ role: "user", content: "hi" }, { role: "assistant", content: "hello" }],
  });
});

it("metrics become rates", () => {
  const text = (read: number, asked: number, hit: number): string => `# HELP x
sluice_disk_read_bytes_total ${read}
sluice_experts_requested_total{model="a b"} ${asked}
sluice_experts_hit_total ${hit}
sluice_requests_total{path="/",status="200"} 2
sluice_requests_total{path="/x",status="404"} 3
broken line here
`;
  const before = { at: 10, metrics: parseMetrics(text(1000, 100, 50)) };
  expect(before.metrics.get("sluice_requests_total")).toBe(5);
  const now = { at: 12, metrics: parseMetrics(text(5000, 200, 125)) };
  expect(sample(before, now)).toMatchObject({ diskBytesPerSecond: 2000, hitRate: 0.75 });
  expect(sample(now, before)).toMatchObject({ diskBytesPerSecond: 0, hitRate: null });
  expect([999, 1000, 123456, 6.1e9].map(bytes)).toEqual(["999 B", "1.0 kB", "123 kB", "6.1 GB"]);
});
