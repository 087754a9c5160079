// The conversation. Follows the answer while its end is in view; a screen reader hears of an answer
// when it is complete, not of every piece.
import type { JSX, TargetedEvent } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { Message } from "./message";
import { useSession } from "./use";

const kNearPixels = 80;

export function Thread(): JSX.Element {
  const [state, session] = useSession();
  const box = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  const kept = session.conversation();
  const messages = kept?.messages ?? [];
  const live = state.answering !== "" && state.answering === kept?.id;

  useLayoutEffect(() => {
    follows.current = true;
  }, [kept?.id, messages.length]);
  useLayoutEffect(() => {
    const element = box.current;
    if (element && follows.current) element.scrollTop = element.scrollHeight;
  });
  const onScroll = (event: TargetedEvent<HTMLDivElement>): void => {
    const { scrollTop, clientHeight, scrollHeight } = event.currentTarget;
    follows.current = scrollTop + clientHeight >= scrollHeight - kNearPixels;
  };

  const model = state.catalogue.models.find((entry) => entry.id === state.settings.model);
  return (
    <div class="thread" ref={box} onScroll={onScroll} tabIndex={0} role="log" aria-live="off"
      aria-label="Conversation">
      <div class="column">
        {messages.length === 0 && (
          <div class="welcome">
            <h2>What shall we work on?</h2>
            <p>
              {model ? (
                <>
                  <b>{model.id}</b> runs on this machine
                  {model.context ? `, with ${model.context.toLocaleString("en")} tokens of context` : ""}
                  . Conversations stay in this browser.
                </>
              ) : (
                "Waiting for the server."
              )}
            </p>
          </div>
        )}
        {messages.map((message, index) => (
          <Message key={message.id} message={message}
            live={live && index === messages.length - 1} />
        ))}
        <p class="unseen" role="status" aria-live="polite">
          {live ? "Answering" : messages.at(-1)?.role === "assistant" ? "Answer complete" : ""}
        </p>
      </div>
    </div>
  );
}
