// A search among candidates as a tree: every look of the judge is a node; one tab stop, arrow keys walk it.
import { useState } from "preact/hooks";
import type { Round } from "../story";
import { about, layout, type Node } from "../tree";

type Props = { round: Round; choose: string; candidates: number; picture: string | null; title: string };

export function Tree({ round, choose, candidates, picture, title }: Props) {
  const [at, setAt] = useState<number | null>(null);
  if (!round.looks.length) return null;
  const { nodes, leaf, width, height, root } = layout(round, choose, candidates);
  const shown = at === null ? null : nodes[at];
  const walk = (event: KeyboardEvent, from: number) => {
    const to = neighbour(nodes, from, event.key);
    if (to === null) return;
    event.preventDefault();
    const group = (event.currentTarget as Element).closest("svg")!;
    setAt(to);
    group.querySelectorAll<SVGGElement>("[data-node]")[to].focus();
  };
  return (
    <figure class="tree">
      <figcaption>
        <h3>{title}</h3>
        <p class="dim">Each row is a candidate, each column a look of the judge. <span class="key kept">kept</span> <span class="key dropped">given up</span></p>
      </figcaption>
      <div class="tree-body">
        <div class="tree-scroll">
          <svg width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="group" aria-label={`${title}. Arrow keys walk through the looks.`}>
            {nodes.map((node, i) => <Edge key={`e${i}`} from={node.parent ?? { ...root, size: 0 }} to={node} kept={node.kept} />)}
            {leaf && <Edge from={leaf.from} to={leaf} kept dashed={leaf.resumed} />}
            <circle class="root" cx={root.x} cy={root.y} r="5" />
            {nodes.map((node, i) => (
              <g
                key={i} data-node role="button" tabIndex={i === (at ?? 0) ? 0 : -1} aria-label={about(node)} aria-pressed={i === at}
                class={`node ${node.dropped ? "dropped" : ""} ${node.kept ? "kept" : ""} ${i === at ? "shown" : ""}`}
                onClick={() => setAt(i)} onFocus={() => setAt(i)} onKeyDown={(event) => walk(event, i)}
              >
                <Mark node={node} />
              </g>
            ))}
            {leaf && picture && (
              <g class="leaf">
                <image href={picture} x={leaf.x - leaf.size / 2} y={leaf.y - leaf.size / 2} width={leaf.size} height={leaf.size} />
                <rect x={leaf.x - leaf.size / 2} y={leaf.y - leaf.size / 2} width={leaf.size} height={leaf.size} rx="6" />
              </g>
            )}
          </svg>
        </div>
        <div class="tree-about">
          {shown?.picture && <img src={shown.picture} alt="" class="exact" />}
          <p aria-live="polite">{shown ? about(shown) : "Choose a node to read what the judge said."}</p>
        </div>
      </div>
    </figure>
  );
}

function Mark({ node }: { node: Node }) {
  if (!node.size) return <circle cx={node.x} cy={node.y} r={node.dropped ? 5 : 3.5} />;
  const half = node.size / 2;
  return (
    <>
      {node.picture && <image href={node.picture} x={node.x - half} y={node.y - half} width={node.size} height={node.size} />}
      <rect x={node.x - half} y={node.y - half} width={node.size} height={node.size} rx="5" />
      {node.dropped && <path d={`M${node.x - half + 6} ${node.y + half - 6}L${node.x + half - 6} ${node.y - half + 6}`} />}
      <text x={node.x} y={node.y + half + 13}>{node.score!.toFixed(2)}</text>
    </>
  );
}

type Point = { x: number; y: number; size: number };

function Edge({ from, to, kept, dashed }: { from: Point; to: Point; kept: boolean; dashed?: boolean }) {
  const [x0, x1] = [from.x + from.size / 2, to.x - to.size / 2];
  const middle = (x0 + x1) / 2;
  const d = `M${x0} ${from.y}C${middle} ${from.y} ${middle} ${to.y} ${x1} ${to.y}`;
  return <path class={`edge ${kept ? "kept" : ""} ${dashed ? "dashed" : ""}`} d={d} />;
}

/** The nearest node in the direction of an arrow key; Home and End are the first and last look. */
function neighbour(nodes: Node[], from: number, key: string): number | null {
  const here = nodes[from];
  if (key === "Home" || key === "End") return key === "Home" ? 0 : nodes.length - 1;
  const sideways = key === "ArrowLeft" || key === "ArrowRight";
  if (!sideways && key !== "ArrowUp" && key !== "ArrowDown") return null;
  const sign = key === "ArrowRight" || key === "ArrowDown" ? 1 : -1;
  let best: number | null = null;
  let least = Infinity;
  nodes.forEach((node, i) => {
    const [along, across] = sideways ? [node.x - here.x, node.y - here.y] : [node.y - here.y, node.x - here.x];
    const cost = Math.abs(along) + 3 * Math.abs(across);
    if (sign * along > 0 && cost < least) [best, least] = [i, cost];
  });
  return best;
}
