// The studio's HTTP interface (docs/http.md), as typed calls.
import { Store } from "./store";

export type Kind = "generate" | "edit" | "context";
export type Part = { image: string } | { text: string };
export type RunRequest = {
  kind: Kind; prompt: string; model?: string; preset?: string; seed?: number; n?: number; group?: string;
  picture?: string; context?: Part[]; [field: string]: unknown;
};
export type State = "queued" | "running" | "done" | "failed" | "cancelled";

/** Whether the studio wants a key before it answers. */
export const locked = new Store(false);

/** The picture that was uploaded under this number, as the studio keeps it. */
export const uploaded = (id: string) => `api/uploads/${id}.png`;

/** Something the server refused, in its own words; `wait` seconds if it only is busy. */
export class Refused extends Error {
  constructor(message: string, readonly status: number, readonly wait: number | null = null) {
    super(message);
  }
}

async function call<T>(path: string, options: RequestInit = {}): Promise<T> {
  const answer = await ask(path, options);
  return answer.status === 204 ? (undefined as T) : ((await answer.json()) as T);
}

/** An answer that is good; Refused, with the server's own sentence, for any other. */
async function ask(path: string, options: RequestInit = {}): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Refused("The studio does not answer. Is it still running? Start it again with “reverie studio”.", 0);
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  const sentence = typeof told?.error === "string" ? told.error : `The studio answered ${answer.status} ${answer.statusText}.`;
  if (answer.status === 401 && path !== "api/login") locked.set(true);
  const wait = answer.status === 429 || answer.status === 503 ? Number(answer.headers.get("Retry-After") ?? 5) : null;
  throw new Refused(sentence, answer.status, wait);
}

const json = (body: unknown): RequestInit => ({
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
});

/** What plans can hold (api/plan): fields with what is allowed, and presets. */
export type Field = { name: string; type: "str" | "int" | "float" | "bool"; default: unknown; help: string; values?: string[] };
export type PlanInfo = {
  fields: Field[]; presets: Record<string, Record<string, unknown>>; models: string[]; limits: { n: number; pictures: number };
};

export type RunCard = {
  id: string; kind: Kind; prompt: string; state: State; error: string | null; created: number; group: string | null;
  preset: string | null; model: string; seed: number; n: number; files: string[];
};
export type RunDetail = RunCard & { request: RunRequest & { plan: Record<string, unknown> }; command: string; python: string };

export type Estimate = { mean: number | null; low: number; high: number; items: number; clusters: number };
export type ReportCard = { path: string; kind: "evaluation" | "training"; title: string; modified: number };
/** One report (api/reports/PATH): what of it is there. */
export type Report = {
  path: string; log: Record<string, unknown>[] | null; recipe: Record<string, unknown> | null; pictures: string[]; files: string[];
  scores: {
    benchmark: string; model: string | null; plan: Record<string, unknown> | string | null; judge: string; seed: number;
    images_scored: number; scores: Record<string, Estimate>; /** Names of scores from 0 to 100. */ percent: string[]; notes: string[];
  } | null;
};
/** A picture of an evaluation and what was said of it (rows.jsonl). */
export type ReportRow = {
  id: string; index: number; tag: string; prompt: string; text: string | null; file: string | null; end: string; score: number | null;
  reason: string; seen: string;
};

const escaped = (path: string) => path.split("/").map(encodeURIComponent).join("/");
/** The address of a file of a report. */
export const inside = (path: string, file: string) => `api/reports/${escaped(path)}/${escaped(file)}`;

/** The whole rows of a report, so far. */
export async function reportRows(path: string): Promise<ReportRow[]> {
  const text = await (await ask(inside(path, "rows.jsonl"))).text();
  return text.split("\n").slice(0, -1).map((line) => JSON.parse(line));
}

export const api = {
  start: (request: RunRequest) => call<{ id: string; seed: number; position: number }>("api/runs", json(request)),
  cancel: (id: string) => call<unknown>(`api/runs/${id}/cancel`, { method: "POST" }),
  run: (id: string) => call<RunDetail>(`api/runs/${encodeURIComponent(id)}`),
  remove: (id: string) => call<unknown>(`api/runs/${encodeURIComponent(id)}`, { method: "DELETE" }),
  runs: (asked: Record<string, string>) => call<{ runs: RunCard[]; next: string | null }>(`api/runs?${new URLSearchParams(asked)}`),
  plan: () => call<PlanInfo>("api/plan"),
  upload: (file: File) => {
    const body = new FormData();
    body.append("file", file);
    return call<{ id: string; width: number; height: number }>("api/uploads", { method: "POST", body });
  },
  reports: () => call<{ reports: ReportCard[] }>("api/reports"),
  report: (path: string) => call<Report>(`api/reports/${escaped(path)}`),
  login: (key: string) => call<void>("api/login", json({ key })),
};
