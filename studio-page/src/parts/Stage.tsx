// A run to look at: the canvas, the same without thinking, and the story beside them.
import { useState } from "preact/hooks";
import type { Plan } from "../events";
import type { Story } from "../story";
import { Canvas } from "./Canvas";
import { Moments } from "./Moments";
import { Picture } from "./Picture";

/** What the plan did to the picture that stands beside the direct one. */
function done(plan: Plan): string {
  if (plan.think !== "never") return "After thinking";
  return plan.choose !== "first" ? "After choosing" : "After looking back";
}

/** The same run under the direct plan: its pictures so far. */
export type Twin = { pictures: (string | null)[]; busy: boolean };
type Props = { story: Story; busy: boolean; twin?: Twin; /** The picture that is edited. */ before?: string | null };

export function Stage({ story, busy, twin, before }: Props) {
  const [chosen, setChosen] = useState(0);
  const at = Math.min(chosen, Math.max(0, story.images.length - 1));
  const image = story.images[at];
  if (!image || !story.plan) return null;
  const searching = image.rounds.some((round) => round.looks.length > 0);
  const name = twin ? done(story.plan) : before ? "After" : "The picture";
  const shape = searching ? "stage searching" : before && twin ? "stage three" : "stage";
  return (
    <div class={shape}>
      <div class="canvases">
        {before && <figure><Picture src={before} alt="The picture that is edited" /><figcaption>Before</figcaption></figure>}
        <figure>
          <Canvas story={story} image={image} label={name} busy={busy} />
          <figcaption>{name} <span class="dim">seed {image.seed}</span></figcaption>
        </figure>
        {twin && (
          <figure>
            <Picture src={twin.pictures[at] ?? null} alt={`As it stands: ${story.prompt}`} waiting={twin.busy ? "Waits its turn" : "Was not painted"} />
            <figcaption>As it stands <span class="dim">the same seed</span></figcaption>
          </figure>
        )}
      </div>
      {story.images.length > 1 && (
        <div class="filmstrip" role="group" aria-label="Pictures of this run">
          {story.images.map((one, i) => (
            <button key={i} type="button" aria-pressed={i === at} aria-label={`Picture ${i + 1}, seed ${one.seed}`} onClick={() => setChosen(i)}>
              {one.picture ? <img src={one.picture} alt="" /> : <span class="blank" />}
            </button>
          ))}
        </div>
      )}
      {image.moments.length > 0 && <section class="telling"><h2 class="sr-only">What it thinks</h2><Moments image={image} story={story} busy={busy} /></section>}
    </div>
  );
}
