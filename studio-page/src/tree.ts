// Where the looks of a judge stand in the drawing of a search: a lane for each candidate, a column for each look.
import type { Look, Round } from "./story";

export type Node = Look & { x: number; y: number; size: number; parent: Node | null; kept: boolean };
export type Layout = { nodes: Node[]; leaf: { x: number; y: number; size: number; from: Node; resumed: boolean } | null; width: number; height: number; root: { x: number; y: number } };

const LEFT = 26;

/** `choose` says how a search goes on: with prm all continue from the best of the look before, otherwise each alone. */
export function layout(round: Round, choose: string, candidates: number): Layout {
  const small = candidates > 8;
  const wide = round.looks.filter((look) => look.at.some((one) => one.score !== null)).length;
  const picture = small ? 30 : wide <= 3 && candidates <= 6 ? 64 : 44;
  const lane = picture + (small ? 16 : 24);
  const height = lane * candidates + 4;
  const root = { x: 8, y: height / 2 };
  const nodes: Node[] = [];
  let x = LEFT;
  let best: Node | null = null;
  const last = new Map<number, Node>();
  for (const { at } of round.looks) {
    const pictured = at.some((look) => look.score !== null);
    x += pictured ? picture / 2 + 12 : 10;
    const column = at.map((look): Node => ({
      ...look, x, y: 2 + picture / 2 + lane * look.candidate, size: look.score !== null ? picture : 0,
      parent: choose === "prm" ? best : last.get(look.candidate) ?? null, kept: false,
    }));
    for (const node of column) last.set(node.candidate, node);
    nodes.push(...column);
    if (choose === "prm") best = column.reduce((a, b) => ((b.score ?? 0) > (a.score ?? 0) ? b : a));
    x += pictured ? picture / 2 + 12 : 10;
  }
  const end = round.chosen === null ? undefined : last.get(round.chosen);
  const size = small ? 48 : Math.max(64, picture);
  const leaf = end ? { x: x + size / 2 + 14, y: Math.min(height - size / 2 - 2, Math.max(size / 2 + 2, end.y)), size, from: end, resumed: end.dropped } : null;
  for (let node: Node | null = end ?? best; node; node = node.parent) node.kept = end !== undefined || choose === "prm";
  return { nodes, leaf, width: (leaf ? leaf.x + size / 2 : x) + 6, height, root };
}

/** What is known about a node, as a sentence. */
export function about(node: Node): string {
  const score = node.score === null ? (node.passed ? "clear" : "nothing to judge yet") : `score ${node.score.toFixed(2)}`;
  const fate = node.dropped ? ", given up" : node.kept ? ", kept" : "";
  return `Candidate ${node.candidate + 1}, step ${node.step}: ${score}${fate}.${node.reason ? ` ${node.reason}` : ""}`;
}
