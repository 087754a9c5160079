// Events of a stream, applied to the message that is being written. Pure, so that the same events
// give the same message; talking to the server is session.ts's.
import { fields, list, number, text } from "../api/json";
import type { Message, ToolStep } from "./types";

function speed(timings: Record<string, unknown>): string {
  const tokens = number(timings["generated_tokens"]);
  const ms = number(timings["generated_ms"]);
  if (tokens === undefined || !ms) return "";
  return `${tokens} tokens, ${((tokens * 1000) / ms).toFixed(1)} tokens/s`;
}

const kFinishes: Record<string, string> = {
  length: "The answer reached the token limit",
};

function noted(message: Message, ...notes: string[]): Message {
  const all = [message.note ?? "", ...notes].filter(Boolean).join(" · ");
  return all ? { ...message, note: all } : message;
}

export function applyChunk(message: Message, event: unknown): Message {
  const chunk = fields(event);
  if ("error" in chunk) {
    return { ...message, error: text(fields(chunk["error"])["message"]) || "The server failed." };
  }
  const choice = fields(list(chunk["choices"])[0]);
  const delta = fields(choice["delta"]);
  const thought = text(delta["reasoning_content"]);
  const next = { ...message, content: message.content + text(delta["content"]) };
  if (thought) next.reasoning = (message.reasoning ?? "") + thought;
  return noted(
    next,
    kFinishes[text(choice["finish_reason"])] ?? "",
    speed(fields(chunk["timings"])),
  );
}

const withStep = (message: Message, id: string, change: Partial<ToolStep>): Message => ({
  ...message,
  steps: (message.steps ?? []).map((step) => (step.id === id ? { ...step, ...change } : step)),
});

export function decided(message: Message, id: string, allowed: boolean): Message {
  return withStep(message, id, { state: allowed ? "running" : "refused" });
}

export function applyAgentEvent(message: Message, event: unknown): Message {
  const from = fields(event);
  const id = text(from["id"]);
  switch (from["type"]) {
    case "text": {
      const delta = text(from["delta"]);
      return from["reasoning"] === true
        ? { ...message, reasoning: (message.reasoning ?? "") + delta }
        : { ...message, content: message.content + delta };
    }
    case "tool_request": {
      const step: ToolStep = {
        id,
        tool: text(from["tool"]),
        shown: text(from["shown"]),
        state: from["needs_approval"] === true ? "asking" : "running",
        result: "",
        at: message.content.length,
      };
      return { ...message, steps: [...(message.steps ?? []), step] };
    }
    case "tool_result": {
      const refused = message.steps?.find((step) => step.id === id)?.state === "refused";
      const state = refused ? "refused" : from["ok"] === true ? "done" : "failed";
      return withStep(message, id, { state, result: text(from["text"]) });
    }
    case "done": {
      const sources = list(from["sources"]).map((source) => ({
        title: text(fields(source)["title"]),
        url: text(fields(source)["url"]),
      }));
      const next = noted(message, kFinishes[text(from["finish_reason"])] ?? "");
      return sources.length > 0 ? { ...next, sources } : next;
    }
    case "error":
      return { ...message, error: text(from["message"]) || "The agent failed." };
    default:
      return message;
  }
}
