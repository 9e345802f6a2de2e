// The frame of every page: name, ways, theme; and which page an address shows.
import { useEffect, useRef, useState } from "preact/hooks";
import { api, locked } from "./api";
import { Compare } from "./pages/Compare";
import { Context } from "./pages/Context";
import { Edit } from "./pages/Edit";
import { Gallery } from "./pages/Gallery";
import { Generate } from "./pages/Generate";
import { Reports } from "./pages/Reports";
import { RunPage } from "./pages/RunPage";
import { Icon } from "./parts/Icon";
import { Problem } from "./parts/Status";
import { route, to } from "./router";
import { useStore } from "./store";
import { choose, next, theme } from "./theme";

const WAYS = [
  { name: "generate", title: "Generate", icon: "brush" },
  { name: "edit", title: "Edit", icon: "picture" },
  { name: "context", title: "In context", icon: "context" },
  { name: "compare", title: "Compare", icon: "compare" },
  { name: "gallery", title: "Gallery", icon: "gallery" },
  { name: "reports", title: "Reports", icon: "report" },
];

export function App() {
  const parts = useStore(route);
  const [name = "", ...rest] = parts[0] ? parts : ["generate"];
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  const title = name === "run" ? "Run" : WAYS.find((way) => way.name === name)?.title ?? "Not here";
  useEffect(() => {
    document.title = `${title} · Reverie`;
    // A new page begins at its top, for eyes and for screen readers; the first one leaves the focus alone.
    if (!first.current) {
      main.current?.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    first.current = false;
  }, [parts.join("/")]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); main.current?.focus(); }}>To the page</a>
      <header class="top">
        <a class="brand" href={to("generate")}><Moon />Reverie</a>
        <nav aria-label="Pages">
          {WAYS.map((way) => (
            <a key={way.name} href={to(way.name)} aria-current={way.name === name || (name === "run" && way.name === "gallery") ? "page" : undefined}>
              <Icon name={way.icon} /><span>{way.title}</span>
            </a>
          ))}
        </nav>
        <ThemeSwitch />
      </header>
      <main id="main" ref={main} tabIndex={-1}>{useStore(locked) ? <Login /> : <Page name={name} rest={rest} />}</main>
    </>
  );
}

/** Asks for the key of a studio that wants one; the browser then keeps a token in its place. */
function Login() {
  const [key, setKey] = useState("");
  const [error, setError] = useState("");
  const enter = () => api.login(key).then(() => location.reload(), (failure: Error) => setError(failure.message));
  return (
    <>
      <header class="page-head"><h1>A key, please</h1><p class="lead">This studio was started with a key.</p></header>
      <form class="composer login" onSubmit={(event) => { event.preventDefault(); void enter(); }}>
        <div class="field"><label for="key">Key</label><input id="key" type="password" autocomplete="current-password" required value={key} onInput={(event) => setKey(event.currentTarget.value)} /></div>
        {error && <Problem text={error} />}
        <div class="orders"><button class="primary" type="submit">Come in</button></div>
      </form>
    </>
  );
}

function Page({ name, rest }: { name: string; rest: string[] }) {
  switch (name) {
    case "generate": return <Generate />;
    case "edit": return <Edit />;
    case "context": return <Context />;
    case "compare": return <Compare />;
    case "gallery": return <Gallery />;
    case "reports": return <Reports path={rest.join("/")} />;
    case "run": return <RunPage key={rest[0]} id={rest[0] ?? ""} />;
    default: return <header class="page-head"><h1>There is nothing here</h1><p class="lead">The address leads nowhere. <a href={to("generate")}>Paint something</a> instead.</p></header>;
  }
}

const SAYS = { system: "as the system", light: "light", dark: "dark" };

function ThemeSwitch() {
  const now = useStore(theme);
  return (
    <button class="theme" onClick={() => choose(next(now))} aria-label={`Colours: ${SAYS[now]}. Change to ${SAYS[next(now)]}.`} title={`Colours: ${SAYS[now]}`}>
      <Icon name={now === "system" ? "half" : now === "light" ? "sun" : "moon"} />
    </button>
  );
}

const Moon = () => (
  <svg viewBox="0 0 32 32" aria-hidden="true" class="logo"><rect width="32" height="32" rx="9" /><path d="M21.5 20.5A9 9 0 0 1 11.5 8a9 9 0 1 0 10 12.5z" /></svg>
);
