import { desk, Paint } from "./Paint";

const HERE = desk("t2g");
const EXAMPLES = [
  { prompt: "the animal that gives us wool, beside what Newton saw fall", preset: "t2g" },
  { prompt: "a red fish below a boat", preset: "twig" },
  { prompt: "what a caterpillar becomes", preset: "t2g" },
];

export const Generate = () => (
  <Paint
    kind="generate" desk={HERE} title="See it think" label="What shall be seen?" placeholder="the animal that gives us wool, beside what Newton saw fall" button="Paint"
    lead="Write what you want to see. Reverie reasons about it, paints it, and shows you every step of the way." examples={EXAMPLES}
  />
);
