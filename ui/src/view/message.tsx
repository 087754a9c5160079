// One message: what was said, and for an answer its thoughts, tools, sources and what can be done.
import { Fragment, type JSX, type TargetedMouseEvent } from "preact";
import { useMemo, useState } from "preact/hooks";
import type { Message as MessageValue, Source, ToolStep } from "../chat/types";
import { safeUrl, toHtml } from "./markdown";
import { copy, useSession } from "./use";

function Markdown({ text }: { text: string }): JSX.Element {
  const html = useMemo(() => toHtml(text), [text]);
  const onClick = (event: TargetedMouseEvent<HTMLDivElement>): void => {
    const button = event.target instanceof Element ? event.target.closest("[data-copy]") : null;
    const block = button?.closest(".code")?.querySelector("pre");
    if (!button || !block) return;
    void copy(block.textContent ?? "").then((done) => {
      button.textContent = done ? "Copied" : "Not allowed";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  };
  return <div class="prose" onClick={onClick} dangerouslySetInnerHTML={{ __html: html }} />;
}

const kStates: Record<ToolStep["state"], string> = {
  asking: "waits for you",
  running: "running",
  done: "done",
  failed: "failed",
  refused: "refused",
};

function Step({ step, message }: { step: ToolStep; message: string }): JSX.Element {
  const [, session] = useSession();
  const decide = (allowed: boolean): void => void session.decide(message, step.id, allowed);
  return (
    <section class={`step ${step.state}`} aria-label={`Tool ${step.tool}`}>
      <header>
        <strong>{step.tool}</strong>
        <span role="status">{kStates[step.state]}</span>
      </header>
      <pre tabIndex={0}>{step.shown}</pre>
      {step.state === "asking" && (
        <div class="decide" role="group" aria-label="Allow this?">
          <button type="button" class="primary" onClick={() => decide(true)}>
            Allow once
          </button>
          <button type="button" onClick={() => decide(false)}>
            Refuse
          </button>
        </div>
      )}
      {step.result && (
        <details>
          <summary>Result</summary>
          <pre tabIndex={0}>{step.result}</pre>
        </details>
      )}
    </section>
  );
}

function Editor({ message, done }: { message: MessageValue; done: () => void }): JSX.Element {
  const [, session] = useSession();
  const [text, setText] = useState(message.content);
  const submit = (event: Event): void => {
    event.preventDefault();
    if (!text.trim()) return;
    session.resend(message.id, text);
    done();
  };
  return (
    <form class="editor" onSubmit={submit}>
      <textarea
        aria-label="Edit your message"
        rows={3}
        autoFocus
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => event.key === "Escape" && done()}
      />
      <div class="decide">
        <button class="primary">Send again</button>
        <button type="button" onClick={done}>
          Cancel
        </button>
      </div>
    </form>
  );
}

function Asked({ message }: { message: MessageValue }): JSX.Element {
  const [{ answering }] = useSession();
  const [editing, setEditing] = useState(false);
  return (
    <article class="asked" aria-label="You">
      {editing ? (
        <Editor message={message} done={() => setEditing(false)} />
      ) : (
        <>
          <p>{message.content}</p>
          <div class="actions">
            <button type="button" disabled={answering !== ""} onClick={() => setEditing(true)}>
              Edit
            </button>
          </div>
        </>
      )}
    </article>
  );
}

function Link({ title, url }: Source): JSX.Element {
  const href = safeUrl(url);
  if (!href) return <span>{title || url}</span>;
  return (
    <a href={href} target="_blank" rel="noopener noreferrer">
      {title || url}
    </a>
  );
}

function Sources({ message }: { message: MessageValue }): JSX.Element {
  return (
    <ol class="sources" aria-label="Sources">
      {message.sources?.map((source) => (
        <li key={source.url}>
          <Link {...source} />
        </li>
      ))}
    </ol>
  );
}

// Text and tools in the order in which they came.
function Body({ message }: { message: MessageValue }): JSX.Element {
  const steps = message.steps ?? [];
  const from = (index: number): number => (index < 0 ? 0 : (steps[index]?.at ?? Infinity));
  const between = (index: number): JSX.Element | false => {
    const text = message.content.slice(from(index - 1), from(index));
    return text.trim() !== "" && <Markdown text={text} />;
  };
  return (
    <>
      {steps.map((step, index) => (
        <Fragment key={step.id}>
          {between(index)}
          <Step step={step} message={message.id} />
        </Fragment>
      ))}
      {between(steps.length)}
    </>
  );
}

export function Message({ message, live }: { message: MessageValue; live: boolean }): JSX.Element {
  const [{ answering }, session] = useSession();
  if (message.role === "user") return <Asked message={message} />;
  const waiting = live && !message.content && !message.reasoning && !message.steps;
  return (
    <article class="answer" aria-label="Answer" aria-busy={live}>
      {message.reasoning && (
        <details class="thoughts">
          <summary>{live && !message.content ? "Thinking…" : "Thoughts"}</summary>
          <p>{message.reasoning}</p>
        </details>
      )}
      <Body message={message} />
      {waiting && <p class="waiting">Reading…</p>}
      {message.sources && <Sources message={message} />}
      {message.error && (
        <p class="error" role="alert">
          {message.error}
        </p>
      )}
      {!live && (
        <div class="actions">
          <button type="button" onClick={() => void copy(message.content)}>
            Copy
          </button>
          <button
            type="button"
            disabled={answering !== ""}
            onClick={() => session.resend(message.id)}
          >
            Retry
          </button>
          {message.note && <small>{message.note}</small>}
        </div>
      )}
    </article>
  );
}
