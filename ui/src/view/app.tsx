// The page: a bar on top, conversations at the left, gauges at the right when wanted.
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Composer } from "./composer";
import { Gauges } from "./gauges";
import { ReportDialog, SettingsDialog, TokenDialog } from "./settings";
import { Sidebar } from "./sidebar";
import { Thread } from "./thread";
import { useSession } from "./use";

export function App(): JSX.Element {
  const [state, session] = useSession();
  const [menu, setMenu] = useState(false);
  const [gauges, setGauges] = useState(false);
  const [dialog, setDialog] = useState<"" | "settings" | "report">("");
  const { settings, catalogue } = state;
  const model = catalogue.models.find((entry) => entry.id === settings.model);

  useEffect(() => void session.connect(), [session]);
  useEffect(() => {
    if (settings.theme === "system") delete document.documentElement.dataset["theme"];
    else document.documentElement.dataset["theme"] = settings.theme;
  }, [settings.theme]);

  return (
    <div class={gauges ? "page with-gauges" : "page"}>
      <header class="bar">
        <button type="button" class="quiet menu" aria-label="Conversations" aria-expanded={menu}
          onClick={() => setMenu(!menu)}>
          ☰
        </button>
        <h1>Sluice</h1>
        <select aria-label="Model" value={settings.model}
          onChange={(event) => session.configure({ model: event.currentTarget.value })}>
          {catalogue.models.map((entry) => (
            <option key={entry.id} value={entry.id} selected={entry.id === settings.model}>
              {entry.id}
            </option>
          ))}
        </select>
        <span class="space" />
        {model?.report && (
          <button type="button" class="quiet" onClick={() => setDialog("report")}>
            Report
          </button>
        )}
        <button type="button" class="quiet" aria-pressed={gauges} onClick={() => setGauges(!gauges)}>
          Gauges
        </button>
        <button type="button" class="quiet" onClick={() => setDialog("settings")}>
          Settings
        </button>
      </header>
      <Sidebar open={menu} onPick={() => setMenu(false)} />
      <main>
        {state.problem && (
          <p class="error problem" role="alert">
            {state.problem}
            <button type="button" class="quiet" aria-label="Dismiss" onClick={() => session.dismiss()}>
              ✕
            </button>
          </p>
        )}
        <Thread />
        <Composer />
      </main>
      {gauges && <Gauges />}
      {dialog === "settings" && <SettingsDialog onClose={() => setDialog("")} />}
      {dialog === "report" && <ReportDialog onClose={() => setDialog("")} />}
      {state.tokenWanted && <TokenDialog />}
    </div>
  );
}
