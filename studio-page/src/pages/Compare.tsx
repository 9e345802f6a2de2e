// The same prompt and seed under several plans, side by side.
import type { PlanInfo, RunRequest } from "../api";
import { usePlan } from "../ask";
import { newGroup, numeric } from "../draft";
import { Run } from "../follow";
import { Canvas } from "../parts/Canvas";
import { Icon } from "../parts/Icon";
import { Moments } from "../parts/Moments";
import { Problem, Status } from "../parts/Status";
import { to } from "../router";
import { Store, useStore } from "../store";
import { PRESETS } from "../words";

type Form = { prompt: string; seed: string; presets: string[]; candidates: string; judge: string };
const FORM = new Store<Form>({ prompt: "", seed: "", presets: ["direct", "t2g", "twig"], candidates: "6", judge: "" });
const RUNS = new Store<{ preset: string; run: Run }[]>([]);

export function Compare() {
  const form = useStore(FORM);
  const runs = useStore(RUNS);
  const plan = usePlan();
  const ready = form.prompt.trim() !== "" && form.presets.length > 0;
  const choosing = form.presets.some((name) => plan.value?.presets[name]?.choose);
  const toggle = (name: string, on: boolean) => FORM.patch({ presets: on ? [...form.presets, name] : form.presets.filter((one) => one !== name) });
  return (
    <>
      <header class="page-head"><h1>Side by side</h1><p class="lead">The same words and the same seed, under as many plans as you like.</p></header>
      <form class="composer" onSubmit={(event) => { event.preventDefault(); if (ready) void begin(form, plan.value!.presets); }}>
        <label class="prompt-label" for="prompt">What shall be seen?</label>
        <textarea id="prompt" rows={1} required maxLength={4000} value={form.prompt} placeholder="what a caterpillar becomes" onInput={(event) => FORM.patch({ prompt: event.currentTarget.value })} />
        {plan.error && <Problem text={plan.error} />}
        <fieldset class="presets">
          <legend>Plans</legend>
          <div class="chips">
            {Object.keys(plan.value?.presets ?? {}).map((name) => (
              <label key={name} class="chip">
                <input type="checkbox" value={name} checked={form.presets.includes(name)} onChange={(event) => toggle(name, event.currentTarget.checked)} />
                <span>{PRESETS[name]?.title ?? name}</span>
              </label>
            ))}
          </div>
        </fieldset>
        <div class="orders">
          <div class="field narrow"><label for="seed">Seed</label><input id="seed" inputMode="numeric" value={form.seed} placeholder="any" autocomplete="off" onInput={(event) => FORM.patch({ seed: event.currentTarget.value })} /></div>
          {choosing && (
            <>
              <div class="field narrow"><label for="candidates">Candidates</label><input id="candidates" type="number" min="2" max={plan.value!.limits.pictures} value={form.candidates} onInput={(event) => FORM.patch({ candidates: event.currentTarget.value })} /></div>
              <div class="field"><label for="judge">Judge</label>
                <select id="judge" value={form.judge} onChange={(event) => FORM.patch({ judge: event.currentTarget.value })}>
                  <option value="">the painter’s own eyes</option>
                  {plan.value!.fields.find((field) => field.name === "judge")?.values?.map((name) => <option key={name}>{name}</option>)}
                </select>
              </div>
            </>
          )}
          <span class="spring" />
          <button class="primary" type="submit" disabled={!ready || !plan.value}><Icon name="compare" />Compare</button>
        </div>
      </form>
      {runs.length > 0 && (
        <section class="columns" aria-label="The plans">
          {runs.map(({ preset, run }) => <Column key={preset} preset={preset} run={run} />)}
        </section>
      )}
    </>
  );
}

/** The first run draws the seed if none is given; the others follow with the same. */
async function begin(form: Form, known: PlanInfo["presets"]): Promise<void> {
  for (const { run } of RUNS.value) if (run.busy) void run.cancel();
  const group = newGroup();
  const presets = Object.keys(known).filter((name) => form.presets.includes(name));
  const request = (preset: string, seed: number | null): RunRequest => ({
    kind: "generate", prompt: form.prompt.trim(), preset, group,
    ...(seed === null ? {} : { seed }),
    ...(known[preset].choose ? { candidates: numeric(form.candidates), ...(form.judge && { judge: form.judge }) } : {}),
  });
  const typed = form.seed.trim() === "" ? null : (numeric(form.seed) as number);
  const runs = presets.map((preset) => ({ preset, run: new Run(request(preset, typed)) }));
  RUNS.set(runs);
  let seed = typed;
  for (const { preset, run } of runs) {
    run.value.request = request(preset, seed);
    seed = (await run.start()) ?? seed;
    if (RUNS.value !== runs) return;
  }
}

function Column({ preset, run }: { preset: string; run: Run }) {
  const live = useStore(run);
  const image = live.story.images[0];
  return (
    <article class="column" aria-label={PRESETS[preset]?.title ?? preset}>
      <h2>{PRESETS[preset]?.title ?? preset}</h2>
      {image ? <Canvas story={live.story} image={image} label={PRESETS[preset]?.title ?? preset} busy={run.busy} /> : <div class="picture"><div class="blank"><span>Waits its turn</span></div></div>}
      <Status run={run} live={live} />
      {image && <Moments image={image} story={live.story} busy={run.busy} />}
      {live.story.spent && <p class="dim">{work(live.story.spent.work)}</p>}
      {live.id && !run.busy && <p><a href={to("run", live.id)}>The whole story</a></p>}
    </article>
  );
}

/** How much more was computed than plain sampling would have: of decoded tokens, else of the largest kind of work. */
function work(spent: Record<string, [number, number]>): string {
  const [done, plain] = spent.decoded ?? Object.values(spent).find(([, usual]) => usual > 0) ?? [0, 0];
  return plain > 0 ? `${(done / plain).toFixed(1)} times the work of plain sampling` : "";
}
