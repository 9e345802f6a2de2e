// Plans in plain words. The studio's server says which there are (api/plan); what it does not know here is shown by name.

export const PRESETS: Record<string, { title: string; says: string }> = {
  direct: { title: "As it stands", says: "Paints your words as you wrote them." },
  t2g: { title: "Think first", says: "Reasons about your words, rewrites them, then paints." },
  "t2i-r1": { title: "Think, keep the words", says: "Reasons first; the thought follows your words." },
  twig: { title: "Think while painting", says: "A thought before each region, a critique after it." },
  parm: { title: "Choose", says: "Many begin; a judge stops the hopeless and keeps the best." },
  "parm++": { title: "Choose and look back", says: "Chooses, then judges the result and paints again if needed." },
  thinkdiff: { title: "Think in features", says: "What a reader makes of your pictures and words steers the painter." },
};

export const FIELDS: Record<string, { title: string; says: string }> = {
  think: { title: "Think", says: "When to reason in words." },
  choose: { title: "Choose", says: "How one of several candidates is kept." },
  candidates: { title: "Candidates", says: "How many compete for each picture." },
  reflect: { title: "Look back", says: "Rounds of judging and painting again." },
  judge: { title: "Judge", says: "Who chooses and looks back." },
  judge_steps: { title: "Looks", says: "How often the judge looks on the way." },
  regions: { title: "Regions", says: "Parts of the picture with a thought each." },
  schedule: { title: "Heights", says: "uniform, adaptive, or shares such as 2:1:1." },
  guidance: { title: "Guidance", says: "How strictly the words are followed. Empty: the model’s own." },
  temperature: { title: "Temperature", says: "How freely it paints. Empty: the model’s own." },
};

export const VALUES: Record<string, string> = {
  never: "never", before: "before painting", during: "while painting", after: "after painting",
  first: "the only one", orm: "best finished (ORM)", prm: "best at every look (PRM)", parm: "stop the hopeless (PARM)",
};

/** A plan as a few words, for a card. */
export function summary(plan: Record<string, unknown> | null | undefined): string {
  if (!plan) return "";
  const words: string[] = [];
  if (plan.think && plan.think !== "never") words.push(`thinks ${VALUES[plan.think as string] ?? plan.think}`);
  if (plan.choose && plan.choose !== "first") words.push(`chooses among ${plan.candidates} (${plan.choose})`);
  if (Number(plan.reflect) > 0) words.push(`looks back up to ${plan.reflect}×`);
  return words.join(", ") || "as it stands";
}

/** How long ago, in the largest whole unit. */
export function ago(seconds: number): string {
  const past = Math.max(0, Date.now() / 1000 - seconds);
  const units: [number, string][] = [[86400, "day"], [3600, "hour"], [60, "minute"]];
  for (const [size, unit] of units) {
    const count = Math.floor(past / size);
    if (count) return `${count} ${unit}${count > 1 ? "s" : ""} ago`;
  }
  return "just now";
}
