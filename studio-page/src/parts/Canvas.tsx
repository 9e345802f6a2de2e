// One picture in the making: what is painted, and the region that is thought about, with its critique in the margin.
import type { ImageStory, Story } from "../story";
import { Picture } from "./Picture";

type Props = { story: Story; image: ImageStory; label: string; busy: boolean };

export function Canvas({ story, image, label, busy }: Props) {
  const share = Math.min(1, story.step / story.steps);
  const alt = image.finished ? `${label}: ${story.prompt}` : `${label}, ${Math.round(100 * share)}% painted: ${story.prompt}`;
  return (
    <Picture src={image.picture} alt={alt} waiting={busy ? "A blank canvas" : "Nothing was painted"}>
      {busy && image.ends.length > 1 && image.region && <Regions image={image} painted={story.images.length === 1 ? story.step : null} />}
    </Picture>
  );
}

/** `painted` steps are there, if that is known of this picture alone; what is not painted yet is hatched. */
function Regions({ image, painted }: { image: ImageStory; painted: number | null }) {
  const steps = image.ends.at(-1)!;
  const now = image.region!;
  return (
    <div class="regions" aria-hidden="true">
      {image.ends.map((end, i) => {
        const state = i + 1 === now ? "now" : i + 1 < now ? "done" : "later";
        const blank = state === "later" || (state === "now" && painted !== null && painted < end);
        const height = `${(100 * (end - (image.ends[i - 1] ?? 0))) / steps}%`;
        return <div key={i} class={`region ${state} ${blank ? "blank-part" : ""}`} style={{ height }}><b>{i + 1}</b></div>;
      })}
    </div>
  );
}
