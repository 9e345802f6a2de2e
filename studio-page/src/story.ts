// What a run looks like after some of its events: the one place that reads them. The live view hands over all that
// came so far, the replay a part of them; both see the same story.
import type { Plan, RunEvent, Verdict } from "./events";

/** A paragraph of the story of one image. */
export type Moment =
  | { kind: "thought"; region: number | null; text: string; fresh: string; whole: boolean; prompt: string | null; note: string | null }
  | { kind: "schedule"; note: string | null }
  | { kind: "critique"; region: number | null; score: number | null; good: boolean | null; reason: string; judge: string; note: string | null }
  | { kind: "again"; region: number | null; prompt: string; reason: string; note: string | null; round: number }
  | { kind: "search"; round: number }
  | { kind: "chosen"; candidate: number; left: number; note: string | null };

/** A look of the judge at one candidate. `score` is None where it only asked whether anything is to be seen. */
export type Look = {
  step: number; candidate: number; score: number | null; passed: boolean | null; question: string;
  reason: string; picture: string | null; dropped: boolean;
};
/** One search among candidates: the looks in order of their steps, each a row of candidates. */
export type Round = { looks: { step: number; at: Look[] }[]; chosen: number | null; picture: string | null };

export type ImageStory = {
  seed: number; picture: string | null; finished: boolean; moments: Moment[]; rounds: Round[];
  ends: number[]; region: number | null; redone: Record<number, number>;
};
export type Story = {
  prompt: string; plan: Plan | null; steps: number; step: number; images: ImageStory[];
  spent: { seconds: number; work: Record<string, [number, number]> } | null; latest: string;
};

export function tell(events: readonly RunEvent[]): Story {
  const story: Story = { prompt: "", plan: null, steps: 1, step: 0, images: [], spent: null, latest: "" };
  for (const event of events) take(story, event);
  return story;
}

/** Adds one event to a story, in place. */
export function take(story: Story, event: RunEvent): void {
  story.latest = say(event, story);
  switch (event.event) {
    case "started":
      story.prompt = event.prompts[0] ?? "";
      story.plan = event.plan;
      story.steps = event.steps;
      story.images = event.seeds.map((seed) => blank(seed, event.plan, event.steps));
      return;
    case "preview":
      story.step = event.step;
      story.steps = event.steps;
      (event.files ?? []).forEach((file, i) => file && story.images[i] && (story.images[i].picture = file));
      return;
    case "spent":
      story.spent = { seconds: event.seconds, work: event.work };
      return;
    case "pruned":
      drop(story, event.images, event.candidates, event.step);
      return;
    case "thought":
      // A thought without a region is about the prompt, which all images of a run share.
      for (const image of event.region == null ? story.images : only(story, event.image)) think(image, event);
      return;
  }
  for (const image of only(story, event.image)) {
    if (event.event === "scheduled") {
      image.ends = event.ends;
      image.moments.push({ kind: "schedule", note: event.note });
    } else if (event.event === "verdict") judge(image, event);
    else if (event.event === "chosen") {
      const round = image.rounds.at(-1);
      if (round) round.chosen = event.candidate;
      image.moments.push({ kind: "chosen", candidate: event.candidate, left: event.left, note: event.note });
    } else if (event.event === "revised") {
      const { region, prompt, reason, note } = event;
      if (region == null) image.rounds.push({ looks: [], chosen: null, picture: null });
      else image.redone[region] = (image.redone[region] ?? 0) + 1;
      const round = region == null ? image.rounds.length : image.redone[region] + 1;
      image.moments.push({ kind: "again", region, prompt, reason: tidy(reason), note, round });
    } else if (event.event === "finished") {
      image.picture = event.files?.[0] ?? image.picture;
      image.finished = true;
      image.region = null;
    }
  }
}

const only = (story: Story, image: number) => (story.images[image] ? [story.images[image]] : []);

/** Answers come as the model wrote them; the forms that prompts ask for are not for reading. */
const tidy = (text: string | null) =>
  (text ?? "").replace(/^\s*SCORE:.*$/m, "").replace(/IMPROVED_DESCRIPTION:\s*/, "Better described as: ").trim();

function blank(seed: number, plan: Plan, steps: number): ImageStory {
  const interleaved = plan.think === "during" || (plan.regions ?? 1) > 1;
  return {
    seed, picture: null, finished: false, moments: [], rounds: [{ looks: [], chosen: null, picture: null }],
    ends: interleaved ? bands(plan, steps) : [], region: null, redone: {},
  };
}

/** Where the regions of a plan end, in steps, as long as the model has not said otherwise. */
function bands(plan: Plan, steps: number): number[] {
  const heights = plan.schedule.includes(":") ? plan.schedule.split(":").map(Number) : Array(plan.regions ?? 3).fill(1);
  const all = heights.reduce((sum, height) => sum + height, 0);
  let sum = 0;
  return heights.map((height) => Math.round((steps * (sum += height)) / all));
}

function think(image: ImageStory, event: RunEvent & { event: "thought" }): void {
  const last = image.moments.at(-1);
  let open = last?.kind === "thought" && !last.whole && last.region === event.region ? last : undefined;
  if (!open) {
    open = { kind: "thought", region: event.region, text: "", fresh: "", whole: false, prompt: null, note: null };
    image.moments.push(open);
  }
  image.region = event.region ?? image.region;
  if (event.whole === null) {
    open.text += open.fresh;
    open.fresh = event.fragment;
  } else Object.assign(open, { text: event.whole, fresh: "", whole: true, prompt: event.prompt, note: event.note });
}

function judge(image: ImageStory, event: Verdict): void {
  const { region, judge, note, candidate } = event;
  const score = event.scores.score ?? null;
  if (region != null || !["orm", "prm", "clarity", "potential"].includes(event.question)) {
    const good = event.accepted ?? ("aligned" in event.scores ? event.scores.aligned > 0 : null);
    if (event.question === "reflection") image.rounds.at(-1)!.picture = event.files?.[0] ?? null;
    image.moments.push({ kind: "critique", region, score, good, reason: tidy(event.reason), judge, note });
    return;
  }
  const looks = image.rounds.at(-1)!.looks;
  if (!looks.length) image.moments.push({ kind: "search", round: image.rounds.length - 1 });
  const step = event.step ?? 0;
  let row = looks.find((look) => look.step === step);
  if (!row) looks.push((row = { step, at: [] }));
  let look = row.at.find((one) => one.candidate === candidate);
  if (!look) {
    look = { step, candidate, score: null, passed: null, question: "", reason: "", picture: null, dropped: false };
    row.at.push(look);
  }
  look.question = event.question;
  look.passed = "passed" in event.scores ? event.scores.passed > 0 : look.passed;
  if (event.question !== "clarity") look.score = score;
  look.reason = tidy(event.reason) || look.reason;
  look.picture = event.files?.[0] ?? look.picture;
}

function drop(story: Story, images: number[], candidates: number[], step: number): void {
  for (const number of new Set(images)) {
    const image = story.images[number];
    const gone = candidates.filter((_, i) => images[i] === number);
    if (!image) continue;
    const row = image.rounds.at(-1)!.looks.findLast((look) => look.step === step);
    for (const look of row?.at ?? []) if (gone.includes(look.candidate)) look.dropped = true;
  }
}

const number = (i: number) => `candidate ${i + 1}`;
export const part = (region: number | null) => (region == null ? "" : `region ${region}`);

/** One line about an event, for the slider, the progress line and screen readers. */
export function say(event: RunEvent, story: Story): string {
  const of = story.images.length > 1 && event.image !== undefined ? ` of image ${event.image + 1}` : "";
  switch (event.event) {
    case "started": return "Begins";
    case "thought":
      if (event.whole === null) return `Thinks${event.region ? ` about region ${event.region}` : ""}`;
      return `Thought${event.region ? ` about region ${event.region}` : ""}: ${event.whole}`;
    case "scheduled": return `Divides the picture into ${event.ends.length} regions`;
    case "preview": return `Paints: ${Math.round((100 * event.step) / Math.max(1, event.steps))}%`;
    case "verdict":
      if (event.region) return `${event.accepted === false ? "Rejects" : "Looks at"} region ${event.region}${of}`;
      if (event.question === "reflection") return event.scores.aligned ? `Content with the picture${of}` : `Not content${of}: ${tidy(event.reason)}`;
      return `Judges ${number(event.candidate)}${of}`;
    case "pruned": return `Gives up ${event.candidates.map(number).join(", ")}`;
    case "chosen": return `Keeps ${number(event.candidate)}${of}`;
    case "revised": return `Paints ${event.region ? part(event.region) : "the picture"}${of} again`;
    case "finished": return `Picture${of} finished`;
    case "spent": return `Done in ${event.seconds.toFixed(1)} seconds`;
  }
}
