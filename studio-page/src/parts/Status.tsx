// How a run stands: one line with its progress, one for screen readers at milestones, errors in plain words.
import type { Live, Run } from "../follow";
import { Icon } from "./Icon";

/** `cancel` in place of cancelling this run alone. */
export function Status({ run, live, cancel }: { run: Run; live: Live; cancel?: () => void }) {
  const { state, story } = live;
  const share = Math.round((100 * story.step) / story.steps);
  return (
    <div class="status">
      <div class="status-line">
        <span class={`pulse ${state}`} aria-hidden="true" />
        <span class="status-words">{words(live)}</span>
        {run.busy && <button class="quiet-button" onClick={cancel ?? (() => run.cancel())}><Icon name="cross" />Cancel</button>}
      </div>
      {run.busy && <progress max="100" value={state === "running" ? share : 0} aria-label="Painted">{share}%</progress>}
      <p class="sr-only" role="status">{milestone(live)}</p>
      {live.lost && <p class="note">The connection to the studio broke; trying to reach it again.</p>}
      {state === "failed" && live.error && <Problem text={live.error} />}
    </div>
  );
}

export function Problem({ text }: { text: string }) {
  const [first, rest] = halves(text);
  return <div class="problem" role="alert"><strong>{first}</strong>{rest && <p>{rest}</p>}</div>;
}

/** What is wrong, and what to do: the sentences of Reverie have a semicolon or a full stop between them. */
function halves(text: string): [string, string] {
  const at = text.search(/[;.] /);
  return at < 0 ? [begun(text), ""] : [begun(text.slice(0, at)) + ".", begun(text.slice(at + 2))];
}

/** With a capital, unless it begins with the name of a model or a field. */
const begun = (text: string) => (/^[a-z]+[ ,]/.test(text) ? text[0].toUpperCase() + text.slice(1) : text);

function words(live: Live): string {
  switch (live.state) {
    case "asking": return "Asking the studio";
    case "busy": return `The studio is busy. Trying again in ${live.wait} ${live.wait === 1 ? "second" : "seconds"}.`;
    case "queued": return live.position ? `Waiting: ${live.position} ${live.position === 1 ? "run is" : "runs are"} before this one` : "Waiting its turn";
    case "running": return live.story.latest || "Begins";
    case "failed": return "This did not work";
    case "cancelled": return "Cancelled";
    case "done": return live.story.spent ? `Done in ${live.story.spent.seconds.toFixed(1)} seconds` : "Done";
  }
}

/** Changes only at what is worth an interruption: never for a word of a thought or a preview. */
function milestone(live: Live): string {
  if (live.state !== "running") return words(live);
  const image = live.story.images[0];
  const last = image?.moments.at(-1);
  if (last?.kind === "thought" && !last.whole) return "Thinking";
  if (last?.kind === "thought") return `Thought: ${last.text}`;
  if (last?.kind === "critique") return `Critique: ${last.good ? "stays" : "not yet"}. ${last.reason}`;
  if (last) return live.story.latest.startsWith("Paints: ") ? "Painting" : live.story.latest;
  return live.story.step > 0 ? "Painting" : "Begins";
}
