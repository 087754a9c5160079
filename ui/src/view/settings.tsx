// The dialogs: sampling and looks, the token, the fit report.
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { request, token } from "../api/client";
import type { Settings as Values } from "../chat/types";
import { Dialog } from "./dialog";
import { download, useSession } from "./use";

type NumberKey = "temperature" | "top_p" | "top_k" | "min_p" | "max_tokens" | "seed";

const kNumbers: { key: NumberKey; label: string; max?: number; step: number }[] = [
  { key: "temperature", label: "Temperature", max: 2, step: 0.05 },
  { key: "top_p", label: "Top p", max: 1, step: 0.01 },
  { key: "top_k", label: "Top k", step: 1 },
  { key: "min_p", label: "Min p", max: 1, step: 0.01 },
  { key: "max_tokens", label: "Most tokens", step: 1 },
  { key: "seed", label: "Seed", step: 1 },
];

const kThinking = { null: "As the model likes", true: "On", false: "Off" };
const kThemes: Record<Values["theme"], string> = {
  system: "As the system",
  light: "Light",
  dark: "Dark",
};

interface ChoiceProps {
  label: string;
  value: string;
  options: Record<string, string>;
  onChange: (value: string) => void;
}

function Choice({ label, value, options, onChange }: ChoiceProps): JSX.Element {
  return (
    <label class="field">
      {label}
      <select value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        {Object.entries(options).map(([key, name]) => (
          <option key={key} value={key} selected={key === value}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}

export function SettingsDialog({ onClose }: { onClose: () => void }): JSX.Element {
  const [{ settings }, session] = useSession();
  const setNumber = (key: NumberKey, input: HTMLInputElement): void => {
    if (!input.validity.valid) return;
    session.configure({ [key]: input.value === "" ? null : input.valueAsNumber });
  };
  return (
    <Dialog title="Settings" onClose={onClose}>
      <label class="field">
        System prompt
        <textarea rows={3} value={settings.system}
          onInput={(event) => session.configure({ system: event.currentTarget.value })} />
      </label>
      <div class="grid">
        {kNumbers.map(({ key, label, max, step }) => (
          <label class="field" key={key}>
            {label}
            <input type="number" min={0} max={max} step={step} placeholder="model's own"
              value={settings[key] ?? ""}
              onInput={(event) => setNumber(key, event.currentTarget)} />
          </label>
        ))}
        <Choice label="Thinking" value={String(settings.thinking)} options={kThinking}
          onChange={(value) =>
            session.configure({ thinking: value === "null" ? null : value === "true" })
          } />
        <Choice label="Appearance" value={settings.theme} options={kThemes}
          onChange={(value) => session.configure({ theme: value as Values["theme"] })} />
      </div>
    </Dialog>
  );
}

export function TokenDialog(): JSX.Element {
  const [, session] = useSession();
  const [value, setValue] = useState("");
  const submit = (event: Event): void => {
    event.preventDefault();
    if (value.trim()) session.giveToken(value);
  };
  return (
    <Dialog title="This server asks for its token" onClose={() => session.giveToken("")}>
      <form onSubmit={submit}>
        <label class="field">
          Token
          <input type="password" autocomplete="off" value={value}
            onInput={(event) => setValue(event.currentTarget.value)} />
        </label>
        <p class="hint">It is kept until this tab is closed.</p>
        <button class="primary">Continue</button>
      </form>
    </Dialog>
  );
}

// A frame cannot send a token, and one made of fetched text would inherit this page's policy, under
// which the report's own styles do not load: with a token it is a file to save.
export function ReportDialog({ onClose }: { onClose: () => void }): JSX.Element {
  const [{ settings }] = useSession();
  const [problem, setProblem] = useState("");
  const address = `/report?model=${encodeURIComponent(settings.model)}`;
  const save = async (): Promise<void> => {
    try {
      download("report.html", await (await request(address)).blob());
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
    }
  };
  return (
    <Dialog title={`How ${settings.model} was fitted`} wide onClose={onClose}>
      {!token.get() && <iframe title="Fit report" sandbox="" src={address} />}
      <p>
        <button type="button" onClick={() => void save()}>
          Save report
        </button>
      </p>
      {problem && <p class="error" role="alert">{problem}</p>}
    </Dialog>
  );
}
