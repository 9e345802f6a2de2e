// Evaluations and training runs that lie on this machine: what there is, and one of them.
import { api, type Report, type ReportCard } from "../api";
import { useAnswer } from "../ask";
import { Curves } from "../parts/Curves";
import { Scores } from "../parts/Scores";
import { Problem } from "../parts/Status";
import { to } from "../router";
import { ago } from "../words";

export const Reports = ({ path }: { path: string }) => (path ? <One key={path} path={path} /> : <All />);

function All() {
  const { value, error } = useAnswer(() => api.reports(), []);
  const of = (kind: string) => value?.reports.filter((report) => report.kind === kind) ?? [];
  return (
    <>
      <header class="page-head"><h1>Reports</h1><p class="lead">Evaluations with their intervals, training runs with their curves, as they lie on this machine.</p></header>
      {error && <Problem text={error} />}
      {value?.reports.length === 0 && <p class="empty">There are none yet. “reverie evaluate” and “reverie train” write them; “reverie studio --reports” says where to look.</p>}
      <List title="Evaluations" reports={of("evaluation")} />
      <List title="Training" reports={of("training")} />
    </>
  );
}

function List({ title, reports }: { title: string; reports: ReportCard[] }) {
  if (!reports.length) return null;
  return (
    <section class="reports">
      <h2>{title}</h2>
      <ul>{reports.map((report) => <li key={report.path}><a href={to("reports", ...report.path.split("/"))}>{report.title}</a> <span class="dim">{ago(report.modified)}</span></li>)}</ul>
    </section>
  );
}

function One({ path }: { path: string }) {
  const { value: report, error } = useAnswer(() => api.report(path), [path]);
  if (error) return <><header class="page-head"><h1>No such report</h1></header><Problem text={error} /><p><a href={to("reports")}>To the reports</a></p></>;
  if (!report) return <p class="empty" role="status">Reading the report</p>;
  const name = path.split("/").slice(1).join("/") || path;
  return (
    <>
      <header class="page-head">
        <p><a href={to("reports")}>Reports</a></p>
        <h1>{report.scores ? `${report.scores.benchmark}` : name}</h1>
        {report.scores && <p class="lead">{name}</p>}
      </header>
      {report.scores && <Scores report={report} />}
      {report.log && report.log.length > 0 && <Curves log={report.log} />}
      {!report.scores && <Sheets pictures={report.pictures} />}
      {report.recipe && <Values title="Recipe" values={report.recipe} />}
    </>
  );
}

/** What the model made on the way, the latest first. */
function Sheets({ pictures }: { pictures: string[] }) {
  if (!pictures.length) return null;
  const name = (url: string) => decodeURIComponent(url.split("/").at(-1)!);
  return (
    <section class="sheets">
      <h2>Samples</h2>
      {[...pictures].reverse().map((url) => (
        <figure key={url}><a href={url}><img src={url} alt={`Samples: ${name(url)}`} loading="lazy" /></a><figcaption class="dim">{name(url)}</figcaption></figure>
      ))}
    </section>
  );
}

const Values = ({ title, values }: { title: string; values: Report["recipe"] }) => (
  <details class="fine"><summary>{title}</summary><pre class="values" tabIndex={0}>{JSON.stringify(values, null, 2)}</pre></details>
);
