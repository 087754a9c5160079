import { render } from "preact";
import { Session } from "./chat/session";
import { Store } from "./chat/store";
import { App } from "./view/app";
import { SessionContext } from "./view/use";
import "uplot/dist/uPlot.min.css";
import "./view/page.css";

const root = document.getElementById("app");
if (root) {
  render(
    <SessionContext.Provider value={new Session(new Store(localStorage))}>
      <App />
    </SessionContext.Provider>,
    root,
  );
}
