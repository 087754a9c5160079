import { expect, it } from "vitest";
import { exported, imported, Store, type KeyValues } from "../src/chat/store";
import { kDefaults, type Conversation } from "../src/chat/types";

class Memory implements KeyValues {
  entries = new Map<string, string>();
  full = false;
  get length(): number {
    return this.entries.size;
  }
  key = (index: number): string | null => [...this.entries.keys()][index] ?? null;
  getItem = (key: string): string | null => this.entries.get(key) ?? null;
  removeItem = (key: string): void => void this.entries.delete(key);
  setItem = (key: string, value: string): void => {
    if (this.full) throw new Error("QuotaExceededError");
    this.entries.set(key, value);
  };
}

const talk = (id: string, updated: number): Conversation => ({
  id,
  title: `Talk ${id}`,
  updated,
  messages: [
    { id: "1", role: "user", content: "hi" },
    { id: "2", role: "assistant", content: "hello", reasoning: "polite", note: "2 tokens" },
  ],
});

it("keeps conversations, the newest first", () => {
  const memory = new Memory();
  const store = new Store(memory);
  store.save(talk("a", 1));
  store.save(talk("b", 2));
  expect(new Store(memory).conversations()).toEqual([talk("b", 2), talk("a", 1)]);
  store.remove("b");
  expect(store.conversations()).toEqual([talk("a", 1)]);
});

it("says when there is no room", () => {
  const memory = new Memory();
  memory.full = true;
  expect(new Store(memory).save(talk("a", 1))).toBe(false);
});

it("passes over what it did not write", () => {
  const memory = new Memory();
  memory.entries.set("sluice.chat.x", "{broken");
  memory.entries.set("sluice.chat.y", '{"messages":[{"role":"root","content":"x"},7]}');
  memory.entries.set("other", "1");
  memory.entries.set("sluice.settings", '{"temperature":"hot","theme":"<b>","agent":1}');
  const store = new Store(memory);
  expect(store.conversations().map((entry) => entry.messages)).toEqual([[]]);
  expect(store.settings()).toEqual(kDefaults);
});

it("an approval that a reload cut off cannot be given any more", () => {
  const memory = new Memory();
  const kept = talk("a", 1);
  const step = { id: "1", tool: "shell", shown: "ls", state: "asking" as const, result: "", at: 0 };
  new Store(memory).save({ ...kept, messages: [{ id: "1", role: "assistant", content: "", steps: [step] }] });
  expect(new Store(memory).conversations()[0]?.messages[0]?.steps?.[0]?.state).toBe("refused");
});

it("imports what it exports, under other ids", () => {
  const back = imported(exported([talk("a", 1)]));
  expect(back[0]?.messages).toEqual(talk("a", 1).messages);
  expect(back[0]?.id).not.toBe("a");
  for (const other of ["", "[]", "{}", '{"conversations":[1]}']) {
    expect(() => imported(other)).toThrow("no conversations");
  }
});
