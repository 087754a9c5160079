// Hooks: the session's state in a view.
import { createContext } from "preact";
import { useContext, useEffect, useState } from "preact/hooks";
import type { Session, State } from "../chat/session";

export const SessionContext = createContext<Session | null>(null);

export function useSession(): [State, Session] {
  const session = useContext(SessionContext);
  if (!session) throw new Error("no session");
  const [state, setState] = useState(session.get());
  useEffect(() => session.subscribe(() => setState(session.get())), [session]);
  return [state, session];
}

export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // no permission, or not a secure context
  }
}

export function download(name: string, content: Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
