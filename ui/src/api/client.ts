// Requests to the server that served this page. Every failure becomes one sentence for a person.
import { events } from "./sse";
import { fields, list, number, text } from "./json";

const kTokenKey = "sluice.token";

export class RequestError extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

export interface Model {
  id: string;
  context: number | undefined;
  parameters: number | undefined;
  report: boolean;
  reasoning: boolean;
}

export interface Catalogue {
  models: Model[];
  agent: boolean;
  agentTools: string[];
}

export const token = {
  get: (): string => sessionStorage.getItem(kTokenKey) ?? "",
  set: (value: string): void => sessionStorage.setItem(kTokenKey, value),
};

export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (token.get()) headers.set("Authorization", `Bearer ${token.get()}`);
  if (init.body) headers.set("Content-Type", "application/json");
  let reply: Response;
  try {
    reply = await fetch(path, { ...init, headers });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new RequestError("The server does not answer. Is sluice serve still running?", 0);
  }
  if (reply.ok) return reply;
  throw new RequestError(await reason(reply), reply.status);
}

async function reason(reply: Response): Promise<string> {
  try {
    const message = text(fields(fields(await reply.json())["error"])["message"]);
    if (message) return message;
  } catch {
    // Not JSON: its status has to do.
  }
  return `The server refused this (HTTP status ${reply.status}).`;
}

export async function* stream(
  path: string,
  body: unknown,
  signal: AbortSignal,
): AsyncGenerator<unknown> {
  const reply = await request(path, { method: "POST", body: JSON.stringify(body), signal });
  if (!reply.body) throw new RequestError("The server sent an empty reply.", reply.status);
  try {
    yield* events(reply.body);
  } catch (error) {
    if (signal.aborted) throw error;
    if (error instanceof SyntaxError) {
      throw new RequestError("The server sent an event that is not JSON.", reply.status);
    }
    throw error instanceof TypeError
      ? new RequestError("The connection broke before the answer was complete.", 0)
      : error;
  }
}

export async function catalogue(): Promise<Catalogue> {
  const body = fields(await (await request("/v1/models")).json());
  const server = fields(body["sluice"]);
  const models = list(body["data"]).map((entry): Model => {
    const extra = fields(fields(entry)["sluice"]);
    return {
      id: text(fields(entry)["id"]),
      context: number(extra["context"]),
      parameters: number(extra["parameters"]),
      report: extra["report"] === true,
      reasoning: extra["reasoning"] === true,
    };
  });
  return {
    models: models.filter((model) => model.id !== ""),
    agent: server["agent"] === true,
    agentTools: list(server["agent_tools"]).map(text).filter(Boolean),
  };
}

export async function approve(run: string, id: string, allowed: boolean): Promise<void> {
  await request("/v1/agent/approvals", {
    method: "POST",
    body: JSON.stringify({ run, id, approve: allowed }),
  });
}
