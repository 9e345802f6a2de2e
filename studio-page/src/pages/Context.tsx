// Pictures and words in a row, then a prompt that is understood from them. Arrow keys on a part move it.
import { useRef, useState } from "preact/hooks";
import type { Part } from "../api";
import { Dropper, type Given } from "../parts/Dropper";
import { Icon } from "../parts/Icon";
import { Store, useStore } from "../store";
import { desk, Paint } from "./Paint";

type Piece = { key: number; text: string } | { key: number; given: Given | null };

const HERE = desk("direct");
const PIECES = new Store<Piece[]>([{ key: 1, given: null }, { key: 2, text: "" }, { key: 3, given: null }, { key: 4, text: "" }]);
let keys = 5;

const isText = (piece: Piece): piece is { key: number; text: string } => "text" in piece;

function parts(pieces: Piece[]): Part[] {
  const filled = pieces.filter((piece) => (isText(piece) ? piece.text.trim() : piece.given));
  return filled.map((piece) => (isText(piece) ? { text: piece.text.trim() } : { image: piece.given!.id }));
}

export function Context() {
  const pieces = useStore(PIECES);
  const context = parts(pieces);
  return (
    <Paint
      kind="context" desk={HERE} title="Show, and tell" label="And now?" placeholder="a zebra" button="Paint"
      lead="Put pictures and words in a row. Reverie finds out what connects them, and paints what comes next."
      given={() => (context.some((part) => "image" in part) ? { context } : null)} missing="Give at least one picture."
    >
      <Pieces pieces={pieces} />
    </Paint>
  );
}

function Pieces({ pieces }: { pieces: Piece[] }) {
  const [said, setSaid] = useState("");
  const list = useRef<HTMLOListElement>(null);
  const dragged = useRef<number | null>(null);
  const change = (key: number, part: object) => PIECES.set(pieces.map((piece) => (piece.key === key ? ({ ...piece, ...part } as Piece) : piece)));
  const move = (from: number, to: number, focus: boolean) => {
    if (to < 0 || to >= pieces.length || to === from) return;
    const after = [...pieces];
    after.splice(to, 0, ...after.splice(from, 1));
    PIECES.set(after);
    setSaid(`Part ${from + 1} is now part ${to + 1} of ${pieces.length}`);
    if (focus) requestAnimationFrame(() => list.current?.children[to]?.querySelector<HTMLElement>(".grip")?.focus());
  };
  const remove = (at: number) => {
    PIECES.set(pieces.filter((_, i) => i !== at));
    setSaid(`Part ${at + 1} is gone`);
  };
  const add = (piece: Piece) => PIECES.set([...pieces, piece]);
  return (
    <fieldset class="pieces">
      <legend>What it is shown</legend>
      <p class="dim" id="how">Drag the parts, or use the arrow keys on their handles, to put them in order.</p>
      <ol ref={list}>
        {pieces.map((piece, i) => (
          <li key={piece.key} onDragOver={(event) => event.preventDefault()} onDrop={(event) => { if (dragged.current !== null) { event.preventDefault(); move(dragged.current, i, false); dragged.current = null; } }}>
            <button
              type="button" class="grip" draggable aria-label={`Part ${i + 1} of ${pieces.length}, ${isText(piece) ? "words" : "picture"}: move`} aria-describedby="how"
              onDragStart={(event) => { dragged.current = i; event.dataTransfer?.setData("text/plain", String(i)); }} onDragEnd={() => { dragged.current = null; }}
              onKeyDown={(event) => { const step = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 }[event.key]; if (step) { event.preventDefault(); move(i, i + step, true); } }}
            >{i + 1}</button>
            <div class="piece-body">
              {isText(piece) ? (
                <><label for={`piece-${piece.key}`}>Words</label><input id={`piece-${piece.key}`} value={piece.text} placeholder="a cat" onInput={(event) => change(piece.key, { text: event.currentTarget.value })} /></>
              ) : (
                <Dropper id={`piece-${piece.key}`} label="Picture" given={piece.given} take={(given) => change(piece.key, { given })} />
              )}
            </div>
            <button type="button" class="quiet-button" aria-label={`Remove part ${i + 1}`} onClick={() => remove(i)}><Icon name="cross" /></button>
          </li>
        ))}
      </ol>
      <p class="row">
        <button type="button" class="quiet-button" onClick={() => add({ key: keys++, given: null })}><Icon name="plus" />Picture</button>
        <button type="button" class="quiet-button" onClick={() => add({ key: keys++, text: "" })}><Icon name="plus" />Words</button>
      </p>
      <p class="sr-only" role="status">{said}</p>
    </fieldset>
  );
}
