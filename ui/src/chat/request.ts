// A conversation and settings as the body of a request.
import type { Message, Settings } from "./types";

const kNumbers = ["temperature", "top_p", "top_k", "min_p", "max_tokens", "seed"] as const;

export function requestBody(messages: Message[], settings: Settings): Record<string, unknown> {
  const sent: { role: string; content: string }[] = [];
  if (settings.system.trim()) sent.push({ role: "system", content: settings.system });
  for (const { role, content } of messages) {
    // Thoughts stay out of the history; an answer that failed was never said.
    if (role === "user" || content !== "") sent.push({ role, content });
  }
  const body: Record<string, unknown> = { model: settings.model, messages: sent };
  for (const key of kNumbers) {
    if (settings[key] !== null) body[key] = settings[key];
  }
  if (settings.thinking !== null) {
    body["chat_template_kwargs"] = { enable_thinking: settings.thinking };
  }
  return body;
}
