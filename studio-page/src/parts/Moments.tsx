// The story of one image: thoughts as they are written, searches as trees, critiques, what was done again.
import { Fragment } from "preact";
import type { Plan } from "../events";
import type { ImageStory, Moment, Story } from "../story";
import { Icon } from "./Icon";
import { Tree } from "./Tree";

export function Moments({ image, story, busy }: { image: ImageStory; story: Story; busy: boolean }) {
  const moments = image.moments;
  if (!moments.length) return null;
  return (
    <ol class="moments">
      {moments.map((moment, i) => (
        <li key={i} class={`moment ${moment.kind}`}>
          <Told moment={moment} image={image} plan={story.plan!} prompt={story.prompt} writing={busy && i === moments.length - 1} />
        </li>
      ))}
    </ol>
  );
}

type ToldProps = { moment: Moment; image: ImageStory; plan: Plan; prompt: string; writing: boolean };

function Told({ moment, image, plan, prompt, writing }: ToldProps) {
  switch (moment.kind) {
    case "thought":
      return (
        <Fragment>
          <h3>Thought{moment.region ? `, region ${moment.region}` : ""}</h3>
          <p class="thought-text">
            {moment.text}
            {moment.fresh && <span class="fresh" key={moment.text.length}>{moment.fresh}</span>}
            {writing && !moment.whole && <span class="caret" aria-hidden="true" />}
          </p>
          {moment.prompt && !moment.region && moment.prompt !== prompt && (
            <p class="rewritten"><span class="dim">So it paints</span> “{moment.prompt}”</p>
          )}
          <Note text={moment.note} />
        </Fragment>
      );
    case "schedule":
      return <Fragment><h3>The picture is divided</h3><Note text={moment.note} /></Fragment>;
    case "critique":
      return (
        <Fragment>
          <h3>
            Critique{moment.region ? `, region ${moment.region}` : ""}
            {moment.good !== null && (
              <span class={moment.good ? "mark good" : "mark bad"}>
                <Icon name={moment.good ? "tick" : "again"} />{moment.good ? "stays" : "not yet"}
              </span>
            )}
            {moment.score !== null && <span class="dim score">{score(moment.score)}</span>}
          </h3>
          {moment.reason && <p>{moment.reason}</p>}
          <Note text={moment.note} />
        </Fragment>
      );
    case "again":
      return (
        <Fragment>
          <h3><Icon name="again" />{moment.region ? `Region ${moment.region} is painted again` : `Round ${moment.round}: the picture is painted again`}</h3>
          {moment.prompt && <p class="rewritten"><span class="dim">from</span> “{moment.prompt}”</p>}
          <Note text={moment.note} />
        </Fragment>
      );
    case "search": {
      const round = image.rounds[moment.round];
      const last = moment.round === image.rounds.length - 1;
      const picture = round.picture ?? (last && image.finished ? image.picture : null);
      const title = image.rounds.length > 1 ? `Candidates, round ${moment.round + 1}` : "Candidates";
      return <Tree round={round} choose={plan.choose} candidates={plan.candidates} picture={picture} title={title} />;
    }
    case "chosen":
      return (
        <Fragment>
          <h3><Icon name="star" />Candidate {moment.candidate + 1} is kept{moment.left > 1 ? `, of ${moment.left} that were left` : ""}</h3>
          <Note text={moment.note} />
        </Fragment>
      );
  }
}

const Note = ({ text }: { text: string | null }) => (text ? <p class="note">{text}</p> : null);

/** Judges score from 0 to 1 or to 100; both are shown as they are. */
export const score = (value: number) => (Number.isInteger(value) && value > 1 ? String(value) : value.toFixed(2));
