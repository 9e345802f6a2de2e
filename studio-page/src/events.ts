// The events of a run, as src/reverie/events.py writes them, with the addresses of their pictures.

type Common = { files?: (string | null)[]; image?: number };

export type Started = Common & {
  event: "started"; prompts: string[]; seeds: number[]; plan: Plan; steps: number;
};
export type Thought = Common & {
  event: "thought"; image: number; fragment: string; whole: string | null; prompt: string | null;
  note: string | null; region: number | null;
};
export type Scheduled = Common & {
  event: "scheduled"; image: number; ends: number[]; answer: string; note: string | null;
};
export type Preview = Common & { event: "preview"; step: number; steps: number };
export type Verdict = Common & {
  event: "verdict"; image: number; judge: string; scores: Record<string, number>; reason: string | null;
  candidate: number; question: string; step: number | null; note: string | null; region: number | null;
  accepted: boolean | null;
};
export type Pruned = Common & { event: "pruned"; images: number[]; step: number; candidates: number[] };
export type Chosen = Common & {
  event: "chosen"; image: number; candidate: number; seed: number; left: number; note: string | null;
};
export type Revised = Common & {
  event: "revised"; image: number; step: number; prompt: string; reason: string | null; note: string | null;
  region: number | null;
};
export type Finished = Common & { event: "finished"; image: number; seed: number; recipe: Record<string, unknown> };
export type Spent = Common & { event: "spent"; seconds: number; work: Record<string, [number, number]> };

export type RunEvent =
  | Started | Thought | Scheduled | Preview | Verdict | Pruned | Chosen | Revised | Finished | Spent;

export type Plan = {
  think: string; choose: string; candidates: number; reflect: number; judge: string | null;
  regions: number | null; schedule: string; threshold: number; judge_steps: number;
  guidance: number | null; temperature: number | null;
  [field: string]: unknown;
};
