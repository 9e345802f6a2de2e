// The log of a training run as small curves, one for each number that it holds, over the steps.
type Row = Record<string, unknown>;
type Point = { step: number; value: number };

const NOT_DRAWN = ["step", "minutes", "seconds"];
const WIDTH = 320;
const HEIGHT = 120;

export function Curves({ log }: { log: Row[] }) {
  const names = [...new Set(log.flatMap((row) => Object.keys(row)))].filter((name) => !NOT_DRAWN.includes(name));
  const curves = names.map((name) => ({ name, points: points(log, name) })).filter(({ points }) => points.length > 1);
  return (
    <section class="curves">
      <h2>Curves</h2>
      <div class="curve-grid">{curves.map((curve) => <Curve key={curve.name} {...curve} />)}</div>
    </section>
  );
}

function points(log: Row[], name: string): Point[] {
  const at = (row: Row, i: number) => (typeof row.step === "number" ? row.step : i);
  return log.map((row, i) => ({ step: at(row, i), value: row[name] })).filter((point): point is Point => typeof point.value === "number");
}

function Curve({ name, points }: { name: string; points: Point[] }) {
  const values = points.map((point) => point.value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [first, last] = [points[0], points.at(-1)!];
  const x = (step: number) => (WIDTH * (step - first.step)) / Math.max(1e-9, last.step - first.step);
  const y = (value: number) => HEIGHT - 4 - ((HEIGHT - 8) * (value - low)) / (high - low || 1);
  const line = points.map(({ step, value }, i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  return (
    <figure class="curve">
      <figcaption><b>{name}</b> <span class="now">{short(last.value)}</span></figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={`${name}: ${short(first.value)} at step ${first.step}, ${short(last.value)} at step ${last.step}; between ${short(low)} and ${short(high)}`}>
        <path d={line} vector-effect="non-scaling-stroke" />
      </svg>
      <p class="dim"><span>{short(low)} to {short(high)}</span><span>step {last.step}</span></p>
    </figure>
  );
}

export const short = (value: number) => (value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 1e5) ? value.toExponential(1) : String(Number(value.toPrecision(4))));
