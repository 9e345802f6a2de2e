// How to think, choose and look back: a preset in plain words, and every field of the plan for whoever wants it.
import type { Field, PlanInfo } from "../api";
import { type Draft, valueOf } from "../draft";
import { FIELDS, PRESETS, VALUES } from "../words";

type Props = { draft: Draft; info: PlanInfo; change: (part: Partial<Draft>) => void };

/** What is worth a place beside the seed as soon as somebody chooses. The page begins with fewer candidates than the
    presets, which are the paper's: a laptop paints six in the time of a breath. */
const UP_FRONT = ["candidates", "judge"];
const FEW = { candidates: "6" };

/** Whether a judge picks among candidates. */
export const chooses = (draft: Draft, info: PlanInfo) => valueOf(draft, info, "choose") !== "first";

export function Choosing(props: Props) {
  const fields = props.info.fields.filter((field) => UP_FRONT.includes(field.name));
  return <>{fields.map((field) => <PlanField key={field.name} field={field} brief {...props} />)}</>;
}

export function PlanForm({ draft, info, change }: Props) {
  const names = Object.keys(info.presets);
  const hidden = chooses(draft, info) ? UP_FRONT : [];
  const select = (name: string) => change({ preset: name, fields: info.presets[name].choose ? FEW : {} });
  return (
    <>
      <fieldset class="presets">
        <legend>How it thinks</legend>
        <div class="chips">
          {names.map((name) => (
            <label key={name} class="chip">
              <input type="radio" name="preset" value={name} checked={draft.preset === name} onChange={() => select(name)} />
              <span>{PRESETS[name]?.title ?? name}</span>
            </label>
          ))}
        </div>
        <p class="says" role="status">{PRESETS[draft.preset]?.says}</p>
      </fieldset>
      <details class="fine">
        <summary>Fine-tune the plan{changed(draft)}</summary>
        <div class="fields">
          {Object.keys(FIELDS).filter((name) => !hidden.includes(name)).map((name) => info.fields.find((field) => field.name === name)).filter((field) => field !== undefined).map((field) => (
            <PlanField key={field.name} field={field} draft={draft} info={info} change={change} />
          ))}
        </div>
      </details>
    </>
  );
}

function changed(draft: Draft): string {
  const count = Object.values(draft.fields).filter((value) => value !== "").length;
  return count ? ` (${count} changed)` : "";
}

function PlanField({ field, draft, info, change, brief }: { field: Field; brief?: boolean } & Props) {
  const id = `plan-${field.name}`;
  const value = valueOf(draft, info, field.name);
  const set = (text: string) => change({ fields: { ...draft.fields, [field.name]: text } });
  const about = FIELDS[field.name];
  return (
    <div class={brief && !field.values ? "field narrow" : "field"}>
      <label for={id}>{about.title}</label>
      {field.values ? (
        <select id={id} value={value} aria-describedby={brief ? undefined : `${id}-says`} onChange={(event) => set(event.currentTarget.value)}>
          {field.default === null && <option value="">{field.name === "judge" ? "the painter’s own eyes" : "the usual"}</option>}
          {field.values.map((one) => <option key={one} value={one}>{VALUES[one] ?? one}</option>)}
        </select>
      ) : (
        <input
          id={id} value={value} aria-describedby={brief ? undefined : `${id}-says`} autocomplete="off" spellcheck={false}
          inputMode={field.type === "str" ? undefined : "decimal"} onInput={(event) => set(event.currentTarget.value)}
        />
      )}
      {!brief && <small id={`${id}-says`}>{about.says}</small>}
    </div>
  );
}
