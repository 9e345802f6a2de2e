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
          {inOrder(info.fields).filter((field) => !hidden.includes(field.name)).map((field) => (
            <PlanField key={field.name} field={field} draft={draft} info={info} change={change} />
          ))}
        </div>
      </details>
    </>
  );
}

/** The fields that have plain words here first, in the order of these; then the others. */
function inOrder(fields: Field[]): Field[] {
  const names = Object.keys(FIELDS);
  const place = ({ name }: Field) => (names.includes(name) ? names.indexOf(name) : names.length);
  return [...fields].sort((a, b) => place(a) - place(b));
}

/** `first` is a word of several fields and means something else in each. */
const worded = (name: string, value: string) => (name === "think" || name === "choose" ? VALUES[value] ?? value : value);

const begun = (text: string) => text[0].toUpperCase() + text.slice(1);

function changed(draft: Draft): string {
  const count = Object.values(draft.fields).filter((value) => value !== "").length;
  return count ? ` (${count} changed)` : "";
}

function PlanField({ field, draft, info, change, brief }: { field: Field; brief?: boolean } & Props) {
  const id = `plan-${field.name}`;
  const value = valueOf(draft, info, field.name);
  const set = (text: string) => change({ fields: { ...draft.fields, [field.name]: text } });
  const about = FIELDS[field.name] ?? { title: begun(field.name.replaceAll("_", " ")), says: field.help };
  const values = field.type === "bool" ? ["false", "true"] : field.values;
  return (
    <div class={brief && !values ? "field narrow" : "field"}>
      <label for={id}>{about.title}</label>
      {values ? (
        <select id={id} value={value} aria-describedby={brief ? undefined : `${id}-says`} onChange={(event) => set(event.currentTarget.value)}>
          {field.default === null && <option value="">{field.name === "judge" ? "the painter’s own eyes" : "the usual"}</option>}
          {values.map((one) => <option key={one} value={one}>{worded(field.name, one)}</option>)}
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
