// An evaluation: a table with intervals drawn beside the numbers, and every picture with what the judge said.
import { useState } from "preact/hooks";
import { type Estimate, inside, type Report, type ReportRow, reportRows } from "../api";
import { useAnswer } from "../ask";
import { summary } from "../words";
import { Problem } from "./Status";

export function Scores({ report }: { report: Report }) {
  const scores = report.scores!;
  const lines = Object.entries(scores.scores).filter(([, line]) => line.mean !== null);
  const plan = typeof scores.plan === "string" ? scores.plan : summary(scores.plan);
  return (
    <>
      <p class="dim">{[scores.model ?? "pictures of others", plan, `judge ${scores.judge}`, `seed ${scores.seed}`, `${scores.images_scored} images`].filter(Boolean).join(" · ")}</p>
      {scores.notes.map((note) => <p key={note} class="note">{note}</p>)}
      <div class="table-scroll" role="region" aria-label="Scores" tabIndex={0}>
        <table class="scores">
          <thead><tr><th scope="col">Score</th><th scope="col" class="number">Images</th><th scope="col" class="number">Prompts</th><th scope="col" class="number">Mean</th><th scope="col">95% interval</th></tr></thead>
          <tbody>
            {lines.map(([name, line], i) => (
              <tr key={name} class={i ? "" : "overall"}>
                <th scope="row">{name}</th><td class="number">{line.items}</td><td class="number">{line.clusters}</td>
                <Numbers line={line} percent={scores.percent.includes(name)} />
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <Rows report={report} />
    </>
  );
}

/** The mean and its interval, in the digits of table.md, and drawn on the scale of the score. */
function Numbers({ line, percent }: { line: Estimate; percent: boolean }) {
  const write = (value: number) => value.toFixed(percent ? 1 : 3);
  const most = percent ? 100 : Math.max(1, line.high);
  const place = (value: number) => `${(100 * Math.max(0, value)) / most}%`;
  return (
    <>
      <td class="number">{write(line.mean!)}</td>
      <td>
        <div class="interval">
          <span class="bar" aria-hidden="true">
            <i class="range" style={{ left: place(line.low), width: place(line.high - line.low) }} /><i class="mean" style={{ left: place(line.mean!) }} />
          </span>
          <span class="dim">{write(line.low)} to {write(line.high)}</span>
        </div>
      </td>
    </>
  );
}

const MORE = 48;

function Rows({ report }: { report: Report }) {
  const { value, error } = useAnswer(() => (report.files.some((file) => file.endsWith("/rows.jsonl")) ? reportRows(report.path) : Promise.resolve([])), [report.path]);
  const [show, setShow] = useState("all");
  const [tag, setTag] = useState("");
  const [count, setCount] = useState(MORE);
  if (error) return <Problem text={error} />;
  if (!value?.length) return null;
  const wanted = value.filter((row) => (show === "all" || (row.score === 1) === (show === "right")) && (!tag || row.tag === tag));
  return (
    <section class="rows" aria-label="Pictures">
      <h2>Every picture</h2>
      <div class="filters">
        <div class="field"><label for="show">Show</label><select id="show" value={show} onChange={(event) => setShow(event.currentTarget.value)}><option>all</option><option>right</option><option>not right</option></select></div>
        <div class="field"><label for="task">Task</label><select id="task" value={tag} onChange={(event) => setTag(event.currentTarget.value)}><option value="">all tasks</option>{[...new Set(value.map((row) => row.tag))].map((name) => <option key={name}>{name}</option>)}</select></div>
      </div>
      <p class="sr-only" role="status">{wanted.length} pictures</p>
      <ul class="cards">{wanted.slice(0, count).map((row) => <RowCard key={`${row.id}-${row.index}`} row={row} path={report.path} />)}</ul>
      {wanted.length > count && <p class="row"><button class="secondary" onClick={() => setCount(count + MORE)}>Show more of {wanted.length}</button></p>}
    </section>
  );
}

function RowCard({ row, path }: { row: ReportRow; path: string }) {
  const right = row.score === 1;
  const verdict = row.end !== "scored" ? row.end : right ? "right" : `${row.score === 0 ? "" : `${row.score}: `}${row.reason || "not right"}`;
  return (
    <li class={`card judged ${right ? "good" : "bad"}`}>
      <div class="card-link">
        {row.file ? <img src={inside(path, row.file)} alt={row.seen || row.prompt} loading="lazy" /> : <span class="blank" />}
        <span class="card-prompt">{row.prompt}</span>
        {row.text && row.text !== row.prompt && <span class="dim">painted from “{row.text}”</span>}
        <span class={right ? "mark good" : "mark bad"}>{verdict}</span>
      </div>
    </li>
  );
}
