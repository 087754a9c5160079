// The page's state and everything that changes it. Values are replaced, never altered, so that the
// views can compare; listeners hear of each change once per frame at most.
import { approve, catalogue, RequestError, stream, token, type Catalogue } from "../api/client";
import { fields, text } from "../api/json";
import { applyAgentEvent, applyChunk, decided } from "./answer";
import { requestBody } from "./request";
import { exported, imported, newId, type Store } from "./store";
import type { Conversation, Message, Settings } from "./types";

export interface State {
  conversations: Conversation[];
  current: string; // id; "": a new one, kept once something is said
  settings: Settings;
  catalogue: Catalogue;
  answering: string; // the conversation being answered; "": none
  problem: string; // one sentence about the page as a whole
  tokenWanted: boolean;
}

const kTitleChars = 48;

export class Session {
  private state: State;
  private listeners = new Set<() => void>();
  private frame = 0;
  private stopper: AbortController | undefined;
  private run = "";
  private afterToken: (() => void) | undefined;

  constructor(private readonly store: Store) {
    const conversations = store.conversations();
    this.state = {
      conversations,
      current: conversations[0]?.id ?? "",
      settings: store.settings(),
      catalogue: { models: [], agent: false, agentTools: [] },
      answering: "",
      problem: "",
      tokenWanted: false,
    };
  }

  get = (): State => this.state;

  subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  conversation(id = this.state.current): Conversation | undefined {
    return this.state.conversations.find((entry) => entry.id === id);
  }

  async connect(): Promise<void> {
    try {
      const found = await catalogue();
      const { settings } = this.state;
      const known = found.models.some((model) => model.id === settings.model);
      this.change({
        catalogue: found,
        problem: "",
        settings: known ? settings : { ...settings, model: found.models[0]?.id ?? "" },
      });
    } catch (error) {
      this.failed(error, () => void this.connect());
    }
  }

  // --- settings and the list of conversations ---

  configure(part: Partial<Settings>): void {
    this.change({ settings: { ...this.state.settings, ...part } });
    this.store.saveSettings(this.state.settings);
  }

  select(id: string): void {
    this.change({ current: id });
  }

  rename(id: string, title: string): void {
    const kept = this.conversation(id);
    if (kept && title.trim()) this.keep({ ...kept, title: title.trim() });
  }

  remove(id: string): void {
    if (this.state.answering === id) this.stop();
    this.store.remove(id);
    const conversations = this.state.conversations.filter((entry) => entry.id !== id);
    const current = this.state.current === id ? (conversations[0]?.id ?? "") : this.state.current;
    this.change({ conversations, current });
  }

  export = (): string => exported(this.state.conversations);

  import(json: string): void {
    try {
      const added = imported(json);
      added.forEach((entry) => this.keep(entry));
      this.change({ current: added[0]?.id ?? this.state.current, problem: "" });
    } catch (error) {
      this.change({ problem: error instanceof Error ? error.message : String(error) });
    }
  }

  dismiss(): void {
    this.change({ problem: "" });
  }

  // --- saying and answering ---

  send(content: string): void {
    if (this.state.answering || !content.trim()) return;
    const kept = this.conversation() ?? {
      id: newId(),
      title: content.trim().replace(/\s+/g, " ").slice(0, kTitleChars),
      updated: 0,
      messages: [],
    };
    void this.answer(kept, [...kept.messages, { id: newId(), role: "user", content }]);
  }

  // Again from that message: a user's with other words, or the one that an answer answers.
  resend(id: string, content?: string): void {
    const kept = this.conversation();
    if (!kept || this.state.answering) return;
    let at = kept.messages.findIndex((message) => message.id === id);
    while (at >= 0 && kept.messages[at]?.role !== "user") --at;
    const asked = kept.messages[at];
    if (!asked) return;
    const again = { ...asked, content: content ?? asked.content };
    void this.answer(kept, [...kept.messages.slice(0, at), again]);
  }

  stop(): void {
    this.stopper?.abort();
  }

  async decide(messageId: string, stepId: string, allowed: boolean): Promise<void> {
    const { answering } = this.state;
    try {
      await approve(this.run, stepId, allowed);
      this.edit(answering, messageId, (message) => decided(message, stepId, allowed));
    } catch (error) {
      this.failed(error, () => void this.decide(messageId, stepId, allowed));
    }
  }

  private async answer(kept: Conversation, asked: Message[]): Promise<void> {
    const { id } = kept;
    const reply: Message = { id: newId(), role: "assistant", content: "" };
    this.keep({ ...kept, updated: Date.now(), messages: [...asked, reply] });
    this.change({ current: id, answering: id });
    const stopper = (this.stopper = new AbortController());
    try {
      await this.receive(id, reply.id, asked, stopper.signal);
    } catch (error) {
      if (stopper.signal.aborted) {
        this.edit(id, reply.id, (message) => ({ ...message, note: "Stopped" }));
      } else {
        const message = error instanceof Error ? error.message : String(error);
        this.edit(id, reply.id, (written) => ({ ...written, error: message }));
        if (error instanceof RequestError && error.status === 401) {
          this.failed(error, () => this.resend(reply.id));
        }
      }
    } finally {
      this.stopper = undefined;
      this.run = "";
      this.change({ answering: "" });
      const written = this.conversation(id);
      if (written) this.keep({ ...written, updated: Date.now() });
    }
  }

  private async receive(
    id: string,
    replyId: string,
    asked: Message[],
    signal: AbortSignal,
  ): Promise<void> {
    const { settings, catalogue: found } = this.state;
    const body = requestBody(asked, settings);
    const agent = settings.agent && found.agent;
    const events = agent
      ? stream("/v1/agent/runs", { ...body, tools_allowed: found.agentTools }, signal)
      : stream(
          "/v1/chat/completions",
          { ...body, stream: true, stream_options: { include_usage: true } },
          signal,
        );
    for await (const event of events) {
      if (agent && fields(event)["type"] === "start") this.run = text(fields(event)["run"]);
      this.edit(id, replyId, (message) => (agent ? applyAgentEvent : applyChunk)(message, event));
    }
  }

  // --- the token ---

  giveToken(value: string): void {
    token.set(value.trim());
    const next = this.afterToken;
    this.afterToken = undefined;
    this.change({ tokenWanted: false, problem: "" });
    if (next) next();
    void this.connect();
  }

  // Asks for a token where that is what is missing, and then goes on with again.
  private failed(error: unknown, again: () => void): void {
    if (error instanceof RequestError && error.status === 401) {
      this.afterToken = again;
      this.change({ tokenWanted: true });
    } else {
      this.change({ problem: error instanceof Error ? error.message : String(error) });
    }
  }

  // --- changing ---

  private edit(id: string, messageId: string, how: (message: Message) => Message): void {
    this.change({
      conversations: this.state.conversations.map((kept) =>
        kept.id !== id
          ? kept
          : {
              ...kept,
              messages: kept.messages.map((entry) => (entry.id === messageId ? how(entry) : entry)),
            },
      ),
    });
  }

  private keep(kept: Conversation): void {
    const others = this.state.conversations.filter((entry) => entry.id !== kept.id);
    const conversations = [...others, kept].sort((a, b) => b.updated - a.updated);
    this.change({ conversations });
    if (!this.store.save(kept)) {
      this.change({
        problem: "The browser has no room for this conversation; export and delete some.",
      });
    }
  }

  private change(part: Partial<State>): void {
    this.state = { ...this.state, ...part };
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.listeners.forEach((listener) => listener());
    });
  }
}
