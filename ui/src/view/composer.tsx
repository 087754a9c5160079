// Where a message is written. Enter sends, Shift+Enter begins a line, Escape stops an answer.
import type { JSX, TargetedKeyboardEvent } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { useSession } from "./use";

export function Composer(): JSX.Element {
  const [state, session] = useSession();
  const [text, setText] = useState("");
  const field = useRef<HTMLTextAreaElement>(null);
  const busy = state.answering !== "";

  useEffect(() => field.current?.focus(), [state.current]);
  useEffect(() => {
    const area = field.current;
    if (!area) return;
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight, 240)}px`;
  }, [text]);

  // Keys ask the session itself: what is drawn is up to a frame older.
  const send = (): void => {
    if (session.get().answering || !text.trim()) return;
    session.send(text);
    setText("");
  };
  const onKeyDown = (event: TargetedKeyboardEvent<HTMLTextAreaElement>): void => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
    if (event.key === "Escape") session.stop();
  };
  const submit = (event: Event): void => {
    event.preventDefault();
    send();
  };
  return (
    <form class="composer" onSubmit={submit}>
      <textarea
        ref={field}
        rows={1}
        aria-label="Message"
        placeholder="Write a message"
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={onKeyDown}
      />
      <div class="under">
        {state.catalogue.agent ? (
          <label class="check">
            <input
              type="checkbox"
              checked={state.settings.agent}
              onChange={(event) => session.configure({ agent: event.currentTarget.checked })}
            />
            Agent <span class="hint">{state.catalogue.agentTools.join(", ")}</span>
          </label>
        ) : (
          <span class="hint wide">Enter sends, Shift and Enter begins a line</span>
        )}
        {busy ? (
          <button type="button" class="primary" onClick={() => session.stop()}>
            Stop
          </button>
        ) : (
          <button class="primary" disabled={!text.trim()}>
            Send
          </button>
        )}
      </div>
    </form>
  );
}
