// One run, told again from its trace: a slider over its events, and the recipe to take along.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { api, uploaded, type RunCard, type RunDetail } from "../api";
import { useAnswer } from "../ask";
import type { RunEvent } from "../events";
import { Run } from "../follow";
import { Copy } from "../parts/Copy";
import { Icon } from "../parts/Icon";
import { Stage, type Twin } from "../parts/Stage";
import { Problem, Status } from "../parts/Status";
import { to } from "../router";
import { useStore } from "../store";
import { say, tell } from "../story";
import { PRESETS, summary } from "../words";

export function RunPage({ id }: { id: string }) {
  const detail = useAnswer(() => api.run(id), [id]);
  const run = useMemo(() => new Run({ kind: "generate", prompt: "" }), [id]);
  const live = useStore(run);
  const group = detail.value?.group;
  const siblings = useAnswer(async () => (group ? (await api.runs({ group, limit: "50" })).runs.filter((one) => one.id !== id) : []), [group, id]);
  const waiting = siblings.value?.some(underway);
  useEffect(() => {
    if (!waiting) return;
    const clock = setInterval(siblings.again, 3000);
    return () => clearInterval(clock);
  }, [waiting]);
  useEffect(() => {
    if (detail.value && !live.id) run.follow(id);
  }, [detail.value]);
  useEffect(() => () => run.leave(), [run]);
  if (detail.error) return <><header class="page-head"><h1>No such run</h1></header><Problem text={detail.error} /><p><a href={to("gallery")}>To the gallery</a></p></>;
  if (!detail.value) return <p class="empty" role="status">Looking for the run</p>;
  const about = detail.value;
  const direct = about.preset === "direct" ? undefined : siblings.value?.find((one) => one.preset === "direct" && one.seed === about.seed);
  return (
    <>
      <header class="page-head run-head"><p class="dim">{summary(about.request.plan)} · seed {about.seed}</p><h1>{about.prompt}</h1></header>
      {run.busy && live.events.length > 0 && about.state !== "done" && <Status run={run} live={live} />}
      {live.state === "failed" && live.error && <Problem text={live.error} />}
      {live.events.length > 0 && <Replay events={live.events} busy={run.busy && about.state !== "done"} twin={direct && { pictures: direct.files, busy: underway(direct) }} before={about.request.picture && uploaded(about.request.picture)} />}
      {live.events.length === 0 && !run.busy && <p class="empty">Nothing was painted.</p>}
      <Siblings runs={(siblings.value ?? []).filter((one) => one !== direct)} />
      <Recipe about={about} />
    </>
  );
}

const underway = (run: RunCard) => run.state === "queued" || run.state === "running";

/** Milliseconds that an event stays while playing: words are read, previews are watched. */
const PACE: Record<string, number> = { thought: 90, preview: 220, verdict: 160, started: 300 };

function Replay({ events, busy, twin, before }: { events: RunEvent[]; busy: boolean; twin?: Twin; before?: string }) {
  const [at, setAt] = useState<number | null>(null);
  const [playing, setPlaying] = useState(false);
  const last = events.length - 1;
  const now = Math.min(at ?? last, last);
  const story = useMemo(() => tell(events.slice(0, now + 1)), [events.length, now]);
  const clock = useRef(0);
  useEffect(() => {
    if (!playing) return;
    if (now >= last) return setPlaying(false);
    clock.current = setTimeout(() => setAt(now + 1), PACE[events[now].event] ?? 500) as unknown as number;
    return () => clearTimeout(clock.current);
  }, [playing, now, last]);
  const says = useMemo(() => { const all = tell(events.slice(0, 1)); return events.map((event) => say(event, all)); }, [events.length]);
  const go = (to: number) => { setPlaying(false); setAt(Math.min(last, Math.max(0, to))); };
  return (
    <section class="replay" aria-label="Replay">
      <div class="control">
        <div class="player">
          <button class="round" aria-label={playing ? "Pause" : "Play"} onClick={() => { if (!playing && now >= last) setAt(0); setPlaying(!playing); }}><Icon name={playing ? "pause" : "play"} /></button>
          <button class="round small" aria-label="One event back" disabled={now === 0} onClick={() => go(now - 1)}><Icon name="back" /></button>
          <div class="slide">
            <input type="range" aria-label="Events of the run" min="0" max={last} value={now} aria-valuetext={`${now + 1} of ${last + 1}: ${says[now]}`} onInput={(event) => go(Number(event.currentTarget.value))} />
            <Ticks events={events} />
          </div>
          <button class="round small" aria-label="One event on" disabled={now === last} onClick={() => go(now + 1)}><Icon name="next" /></button>
        </div>
        <p class="caption"><span class="dim">{now + 1} of {last + 1}</span> {says[now]}</p>
      </div>
      <Stage story={story} busy={now < last || busy} twin={twin} before={before} />
    </section>
  );
}

/** Where along the slider something was thought, judged or given up. */
function Ticks({ events }: { events: RunEvent[] }) {
  const last = Math.max(1, events.length - 1);
  const kinds = events.map((event, i) => ({ i, kind: event.event === "thought" && event.whole === null ? "" : event.event }));
  return (
    <div class="ticks" aria-hidden="true">
      {kinds.filter(({ kind }) => ["thought", "verdict", "pruned", "revised", "chosen"].includes(kind)).map(({ i, kind }) => (
        <i key={i} class={kind} style={{ left: `${(100 * i) / last}%` }} />
      ))}
    </div>
  );
}

/** The other runs of a comparison, or the direct one beside this. */
function Siblings({ runs }: { runs: RunCard[] }) {
  if (!runs.length) return null;
  return (
    <section class="siblings" aria-label="The same under other plans">
      <h2>The same under other plans</h2>
      <ul class="cards">{runs.map((run) => <RunLink key={run.id} run={run} />)}</ul>
    </section>
  );
}

function RunLink({ run }: { run: RunCard }) {
  return (
    <li class="card">
      <a href={to("run", run.id)} class="card-link">
        {run.files[0] ? <img src={run.files[0]} alt="" loading="lazy" /> : <span class="blank" />}
        <span class="card-prompt">{PRESETS[run.preset ?? "direct"]?.title ?? run.preset}</span>
      </a>
    </li>
  );
}

function Recipe({ about }: { about: RunDetail }) {
  return (
    <section class="recipe" aria-label="Recipe">
      <h2>Paint it again</h2>
      <p class="dim">The same command gives the same picture.</p>
      <Copy forms={[{ name: "Command line", text: about.command }, { name: "Python", text: about.python }]} />
    </section>
  );
}
