// What is kept of conversations and settings. A stored file may come from anywhere: see store.ts.

export type ToolState = "asking" | "running" | "done" | "failed" | "refused";

export interface ToolStep {
  id: string;
  tool: string;
  shown: string; // what exactly would be done
  state: ToolState;
  result: string;
  at: number; // characters of the answer that were there before it
}

export interface Source {
  title: string;
  url: string;
}

export interface Message {
  id: string;
  role: "user" | "assistant";
  content: string;
  reasoning?: string;
  steps?: ToolStep[];
  sources?: Source[];
  error?: string;
  note?: string; // speed, or that it was stopped
}

export interface Conversation {
  id: string;
  title: string;
  updated: number; // milliseconds since 1970
  messages: Message[];
}

// null: the model's own.
export interface Settings {
  model: string;
  system: string;
  temperature: number | null;
  top_p: number | null;
  top_k: number | null;
  min_p: number | null;
  max_tokens: number | null;
  seed: number | null;
  thinking: boolean | null;
  agent: boolean;
  theme: "system" | "light" | "dark";
}

export const kDefaults: Settings = {
  model: "",
  system: "",
  temperature: null,
  top_p: null,
  top_k: null,
  min_p: null,
  max_tokens: null,
  seed: null,
  thinking: null,
  agent: false,
  theme: "system",
};
