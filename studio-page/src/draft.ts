// What is about to be asked for: the prompt and the plan, as they stand in the form. Kept while other pages are open.
import type { Kind, PlanInfo, RunRequest } from "./api";

export type Draft = {
  prompt: string; preset: string;
  /** Fields that differ from the preset, as typed. */
  fields: Record<string, string>;
  seed: string; n: string; model: string;
  /** Whether the direct picture is painted beside it. */
  twin: boolean;
};

export const blankDraft = (preset: string): Draft => ({ prompt: "", preset, fields: {}, seed: "", n: "1", model: "", twin: true });

/** What a field is now: typed, or of the preset, or of every plan. */
export function valueOf(draft: Draft, info: PlanInfo, name: string): string {
  const value = draft.fields[name] ?? info.presets[draft.preset]?.[name] ?? info.fields.find((field) => field.name === name)?.default;
  return value === null || value === undefined ? "" : String(value);
}

/** The request of a draft. Numbers are sent as numbers; what is no number goes as typed, and the server says so. */
export function requestOf(kind: Kind, draft: Draft, info: PlanInfo): RunRequest {
  const request: RunRequest = { kind, prompt: draft.prompt.trim(), preset: draft.preset };
  for (const [name, text] of Object.entries(draft.fields)) {
    const type = info.fields.find((field) => field.name === name)?.type;
    if (text.trim() !== "") request[name] = type === "str" ? text.trim() : type === "bool" ? text === "true" : numeric(text);
  }
  if (draft.model) request.model = draft.model;
  if (draft.seed.trim() !== "") request.seed = numeric(draft.seed) as number;
  if (draft.n.trim() !== "" && draft.n !== "1") request.n = numeric(draft.n) as number;
  return request;
}

/** A number if it is one; otherwise the text, about which the studio will say a sentence. */
export const numeric = (text: string): number | string => (Number.isFinite(Number(text)) ? Number(text) : text.trim());

/** The same without reasoning: what is typed and how it is painted stays. */
export function directOf(request: RunRequest, seed: number): RunRequest {
  const { kind, prompt, model, n, guidance, temperature, picture, context } = request;
  const kept = { kind, prompt, model, n, guidance, temperature, picture, context, preset: "direct", seed };
  return Object.fromEntries(Object.entries(kept).filter(([, value]) => value !== undefined)) as RunRequest;
}

export const newGroup = () => Date.now().toString(36) + Math.random().toString(36).slice(2, 8);
