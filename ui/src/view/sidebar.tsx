// The list of conversations, and taking them out and in.
import type { JSX, TargetedEvent } from "preact";
import { useRef, useState } from "preact/hooks";
import type { Conversation } from "../chat/types";
import { download, useSession } from "./use";

function Entry({ kept, onPick }: { kept: Conversation; onPick: () => void }): JSX.Element {
  const [state, session] = useSession();
  const [naming, setNaming] = useState(false);
  const rename = (event: TargetedEvent<HTMLFormElement>): void => {
    event.preventDefault();
    const title = new FormData(event.currentTarget).get("title");
    session.rename(kept.id, typeof title === "string" ? title : "");
    setNaming(false);
  };
  if (naming) {
    return (
      <li>
        <form onSubmit={rename}>
          <input name="title" aria-label="Title" defaultValue={kept.title} autoFocus
            onKeyDown={(event) => event.key === "Escape" && setNaming(false)} />
        </form>
      </li>
    );
  }
  const current = kept.id === state.current;
  return (
    <li class={current ? "current" : ""}>
      <button type="button" class="title" aria-current={current ? "page" : undefined}
        onClick={() => {
          session.select(kept.id);
          onPick();
        }}>
        {kept.title}
      </button>
      <button type="button" class="quiet" aria-label={`Rename ${kept.title}`}
        onClick={() => setNaming(true)}>
        ✎
      </button>
      <button type="button" class="quiet" aria-label={`Delete ${kept.title}`}
        onClick={() => confirm(`Delete “${kept.title}”?`) && session.remove(kept.id)}>
        ✕
      </button>
    </li>
  );
}

export function Sidebar({ open, onPick }: { open: boolean; onPick: () => void }): JSX.Element {
  const [state, session] = useSession();
  const file = useRef<HTMLInputElement>(null);
  const read = (input: HTMLInputElement): void => {
    const chosen = input.files?.[0];
    input.value = "";
    void chosen?.text().then((json) => session.import(json));
  };
  return (
    <nav class={open ? "sidebar open" : "sidebar"} aria-label="Conversations">
      <button type="button" class="new"
        onClick={() => {
          session.select("");
          onPick();
        }}>
        New conversation
      </button>
      <ul>
        {state.conversations.map((kept) => (
          <Entry key={kept.id} kept={kept} onPick={onPick} />
        ))}
      </ul>
      <footer>
        <button type="button" class="quiet" disabled={state.conversations.length === 0}
          onClick={() =>
            download("conversations.json", new Blob([session.export()], { type: "application/json" }))
          }>
          Export
        </button>
        <button type="button" class="quiet" onClick={() => file.current?.click()}>
          Import
        </button>
        <input ref={file} type="file" accept="application/json,.json" hidden aria-label="Import file"
          onChange={(event) => read(event.currentTarget)} />
      </footer>
    </nav>
  );
}
