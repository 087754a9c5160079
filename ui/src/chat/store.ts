// Conversations and settings in the browser's own storage, one entry each, so that a reload and
// another tab find them. What is read back or imported is checked field by field.
import { fields, list, number, text } from "../api/json";
import { kDefaults, type Conversation, type Message, type Settings, type ToolStep } from "./types";

const kPrefix = "sluice.chat.";
const kSettings = "sluice.settings";

export type KeyValues = Pick<Storage, "getItem" | "setItem" | "removeItem" | "key" | "length">;

export const newId = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => byte.toString(36)).join("");

function step(value: unknown): ToolStep {
  const from = fields(value);
  const state = text(from["state"]);
  return {
    id: text(from["id"]),
    tool: text(from["tool"]),
    shown: text(from["shown"]),
    // A run that was under way when the page went cannot be answered any more.
    state: state === "done" || state === "failed" ? state : "refused",
    result: text(from["result"]),
    at: number(from["at"]) ?? 0,
  };
}

function message(value: unknown): Message | undefined {
  const from = fields(value);
  const role = from["role"];
  if (role !== "user" && role !== "assistant") return undefined;
  const made: Message = { id: text(from["id"]) || newId(), role, content: text(from["content"]) };
  for (const key of ["reasoning", "error", "note"] as const) {
    if (text(from[key])) made[key] = text(from[key]);
  }
  const steps = list(from["steps"]).map(step);
  if (steps.length > 0) made.steps = steps;
  const sources = list(from["sources"]).map((source) => ({
    title: text(fields(source)["title"]),
    url: text(fields(source)["url"]),
  }));
  if (sources.length > 0) made.sources = sources;
  return made;
}

export function conversation(value: unknown): Conversation | undefined {
  const from = fields(value);
  if (!Array.isArray(from["messages"])) return undefined;
  return {
    id: text(from["id"]) || newId(),
    title: text(from["title"]) || "Conversation",
    updated: number(from["updated"]) ?? 0,
    messages: list(from["messages"]).flatMap((entry) => message(entry) ?? []),
  };
}

function parsed(json: string | null): unknown {
  try {
    return json === null ? undefined : (JSON.parse(json) as unknown);
  } catch {
    return undefined;
  }
}

export class Store {
  constructor(private readonly storage: KeyValues) {}

  // Newest first.
  conversations(): Conversation[] {
    const found: Conversation[] = [];
    for (let index = 0; index < this.storage.length; ++index) {
      const key = this.storage.key(index);
      if (!key?.startsWith(kPrefix)) continue;
      const kept = conversation(parsed(this.storage.getItem(key)));
      if (kept) found.push(kept);
    }
    return found.sort((a, b) => b.updated - a.updated);
  }

  // False: there is no room.
  save(kept: Conversation): boolean {
    try {
      this.storage.setItem(kPrefix + kept.id, JSON.stringify(kept));
      return true;
    } catch {
      return false;
    }
  }

  remove(id: string): void {
    this.storage.removeItem(kPrefix + id);
  }

  settings(): Settings {
    const from = fields(parsed(this.storage.getItem(kSettings)));
    const optional = (key: string): number | null => number(from[key]) ?? null;
    const theme = from["theme"];
    return {
      model: text(from["model"]),
      system: text(from["system"]),
      temperature: optional("temperature"),
      top_p: optional("top_p"),
      top_k: optional("top_k"),
      min_p: optional("min_p"),
      max_tokens: optional("max_tokens"),
      seed: optional("seed"),
      thinking: typeof from["thinking"] === "boolean" ? from["thinking"] : null,
      agent: from["agent"] === true,
      theme: theme === "light" || theme === "dark" ? theme : kDefaults.theme,
    };
  }

  saveSettings(settings: Settings): void {
    try {
      this.storage.setItem(kSettings, JSON.stringify(settings));
    } catch {
      // Full: the settings last as long as the page.
    }
  }
}

export const exported = (all: Conversation[]): string =>
  JSON.stringify({ format: "sluice.conversations", version: 1, conversations: all }, null, 1);

// Each gets an id of its own, so that nothing is overwritten.
export function imported(json: string): Conversation[] {
  const from = parsed(json);
  const all = list(fields(from)["conversations"]).flatMap((entry) => conversation(entry) ?? []);
  if (all.length === 0) throw new Error("That file holds no conversations of Sluice.");
  return all.map((entry) => ({ ...entry, id: newId() }));
}
