// Generate, edit and paint in context: one form, one stage. What differs is what is given beside the words.
import { useEffect, useRef } from "preact/hooks";
import type { Kind, PlanInfo, RunRequest } from "../api";
import { usePlan } from "../ask";
import { blankDraft, directOf, type Draft, newGroup, requestOf } from "../draft";
import { Run } from "../follow";
import { Icon } from "../parts/Icon";
import { chooses, Choosing, PlanForm } from "../parts/PlanForm";
import { Stage } from "../parts/Stage";
import { Problem, Status } from "../parts/Status";
import { to } from "../router";
import { Store, useStore } from "../store";

export type Session = { run: Run | null; twin: Run | null };
export type Desk = { draft: Store<Draft>; session: Store<Session> };
export const desk = (preset: string): Desk => ({ draft: new Store(blankDraft(preset)), session: new Store<Session>({ run: null, twin: null }) });

type Props = {
  kind: Kind; desk: Desk; title: string; lead: string; label: string; placeholder: string; button: string;
  /** What is given beside the words; null while something is missing. */
  given?: () => Partial<RunRequest> | null;
  missing?: string; before?: string | null; children?: preact.ComponentChildren; examples?: { prompt: string; preset: string }[];
};

export function Paint(props: Props) {
  const { kind, desk, given, examples } = props;
  const draft = useStore(desk.draft);
  const session = useStore(desk.session);
  const plan = usePlan();
  const words = useRef<HTMLTextAreaElement>(null);
  const change = (part: Partial<Draft>) => desk.draft.patch(part);
  const extra = given ? given() : {};
  const begin = () => {
    if (!plan.value) return;
    if (!draft.prompt.trim() || !extra) return words.current?.focus();
    void paint(desk, { ...requestOf(kind, draft, plan.value), ...extra });
  };
  return (
    <>
      <header class="page-head"><h1>{props.title}</h1><p class="lead">{props.lead}</p></header>
      <form class="composer" onSubmit={(event) => { event.preventDefault(); begin(); }}>
        {props.children}
        <label class="prompt-label" for="prompt">{props.label}</label>
        <textarea
          id="prompt" ref={words} rows={1} value={draft.prompt} placeholder={props.placeholder} maxLength={4000} required
          onInput={(event) => change({ prompt: event.currentTarget.value })}
          onKeyDown={(event) => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); begin(); } }}
        />
        {examples && !session.run && (
          <p class="examples"><span class="dim">Try</span>
            {examples.map((one) => <button key={one.prompt} type="button" class="example" onClick={() => { change({ ...one, fields: {} }); words.current?.focus(); }}>{one.prompt}</button>)}
          </p>
        )}
        {plan.value && <PlanForm draft={draft} info={plan.value} change={change} />}
        {plan.error && <Problem text={plan.error} />}
        <Orders draft={draft} info={plan.value} change={change}>
          <button class="primary" type="submit" disabled={!plan.value || !extra}><Icon name="brush" />{props.button}</button>
        </Orders>
        {!extra && props.missing && <p class="dim">{props.missing}</p>}
      </form>
      {session.run && <Watched session={session} before={props.before} />}
    </>
  );
}

type OrdersProps = { draft: Draft; info: PlanInfo | null; change: (part: Partial<Draft>) => void; children: preact.ComponentChildren };

function Orders({ draft, info, change, children }: OrdersProps) {
  return (
    <div class="orders">
      <div class="field narrow"><label for="seed">Seed</label><input id="seed" inputMode="numeric" value={draft.seed} placeholder="any" autocomplete="off" onInput={(event) => change({ seed: event.currentTarget.value })} /></div>
      <div class="field narrow"><label for="count">Pictures</label><input id="count" type="number" min="1" max={info?.limits.n} value={draft.n} onInput={(event) => change({ n: event.currentTarget.value })} /></div>
      {info && chooses(draft, info) && <Choosing draft={draft} info={info} change={change} />}
      {info && info.models.length > 1 && (
        <div class="field"><label for="model">Model</label>
          <select id="model" value={draft.model} onChange={(event) => change({ model: event.currentTarget.value })}>
            {info.models.map((name, i) => <option key={name} value={i ? name : ""}>{name}</option>)}
          </select>
        </div>
      )}
      {draft.preset !== "direct" && (
        <label class="check"><input type="checkbox" checked={draft.twin} onChange={(event) => change({ twin: event.currentTarget.checked })} />beside it, the words as they stand</label>
      )}
      <span class="spring" />
      {children}
    </div>
  );
}

/** Starts a run and, once its seed is known, the direct one beside it. A run that is still watched is cancelled. */
async function paint(desk: Desk, request: RunRequest): Promise<void> {
  const before = desk.session.value;
  for (const run of [before.run, before.twin]) if (run?.busy) void run.cancel();
  const grouped = { ...request, group: newGroup() };
  const run = new Run(grouped);
  desk.session.set({ run, twin: null });
  const seed = await run.start();
  const direct = request.preset === "direct" && Object.keys(requestPlan(request)).length === 0;
  if (seed === null || direct || !desk.draft.value.twin || desk.session.value.run !== run) return;
  const twin = new Run({ ...directOf(grouped, seed), group: grouped.group });
  desk.session.patch({ twin });
  await twin.start();
}

/** The fields of a request that make it reason. */
function requestPlan({ think, choose, candidates, reflect, regions }: RunRequest): Record<string, unknown> {
  return Object.fromEntries(Object.entries({ think, choose, candidates, reflect, regions }).filter(([, value]) => value !== undefined));
}

function Watched({ session, before }: { session: Session; before?: string | null }) {
  const run = session.run!;
  const live = useStore(run);
  const here = useRef<HTMLElement>(null);
  useEffect(() => {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (run.busy) here.current?.scrollIntoView({ behavior: still ? "instant" : "smooth", block: "start" });
  }, [run]);
  return (
    <section class="watched" aria-label="The run" ref={here}>
      <Status run={run} live={live} cancel={() => { void run.cancel(); if (session.twin?.busy) void session.twin.cancel(); }} />
      {session.twin ? <Both run={run} twin={session.twin} before={before} /> : <Stage story={live.story} busy={run.busy} before={before} />}
      {live.id && !run.busy && <p class="more"><a href={to("run", live.id)}>The whole story, with its recipe</a></p>}
    </section>
  );
}

function Both({ run, twin, before }: { run: Run; twin: Run; before?: string | null }) {
  const live = useStore(run);
  const other = useStore(twin);
  return (
    <>
      <Stage story={live.story} busy={run.busy} twin={{ pictures: other.story.images.map((image) => image.picture), busy: twin.busy }} before={before} />
      {other.state === "failed" && other.error && <p class="note">As it stands: {other.error}</p>}
    </>
  );
}
