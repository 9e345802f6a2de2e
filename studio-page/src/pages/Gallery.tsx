// All runs of this studio: search, open, delete.
import { useEffect, useState } from "preact/hooks";
import { api, type RunCard } from "../api";
import { Icon } from "../parts/Icon";
import { Problem } from "../parts/Status";
import { to } from "../router";
import { ago, PRESETS } from "../words";

const PAGE = "24";

export function Gallery() {
  const [query, setQuery] = useState("");
  const [kind, setKind] = useState("");
  const [cards, setCards] = useState<RunCard[] | null>(null);
  const [next, setNext] = useState<string | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [said, setSaid] = useState("");
  const asked = { limit: PAGE, ...(query && { query }), ...(kind && { kind }) };
  const load = async (before: string | null) => {
    try {
      const answer = await api.runs(before ? { ...asked, before } : asked);
      setCards((shown) => (before ? [...(shown ?? []), ...answer.runs] : answer.runs));
      setNext(answer.next);
      setError(null);
      if (!before) setSaid(`${answer.runs.length}${answer.next ? " or more" : ""} ${answer.runs.length === 1 ? "run" : "runs"}`);
    } catch (failure) {
      setError((failure as Error).message);
    }
  };
  useEffect(() => {
    const wait = setTimeout(() => void load(null), query ? 250 : 0);
    return () => clearTimeout(wait);
  }, [query, kind]);
  const working = cards?.some((card) => card.state === "queued" || card.state === "running");
  useEffect(() => {
    if (!working) return;
    const wait = setInterval(() => void load(null), 3000);
    return () => clearInterval(wait);
  }, [working, query, kind]);
  const remove = async (card: RunCard) => {
    try {
      await api.remove(card.id);
      setCards((shown) => shown?.filter((one) => one.id !== card.id) ?? null);
      setSaid(`Deleted: ${card.prompt}`);
    } catch (failure) {
      setError((failure as Error).message);
    }
  };
  return (
    <>
      <header class="page-head"><h1>Gallery</h1><p class="lead">Everything painted here. Each picture remembers how it was made.</p></header>
      <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
        <div class="field grow"><label for="query">Search in prompts</label><input id="query" type="search" value={query} onInput={(event) => setQuery(event.currentTarget.value)} /></div>
        <div class="field"><label for="kind">Kind</label>
          <select id="kind" value={kind} onChange={(event) => setKind(event.currentTarget.value)}>
            <option value="">all</option><option value="generate">generated</option><option value="edit">edited</option><option value="context">in context</option>
          </select>
        </div>
      </form>
      <p class="sr-only" role="status">{said}</p>
      {error && <Problem text={error} />}
      {cards?.length === 0 && <p class="empty">{query || kind ? "Nothing here matches." : <>Nothing has been painted yet. <a href={to("generate")}>Begin</a>.</>}</p>}
      <ul class="cards">{cards?.map((card) => <Card key={card.id} card={card} remove={remove} />)}</ul>
      {next && <p class="row"><button class="secondary" onClick={() => void load(next)}>Show more</button></p>}
    </>
  );
}

const STATES: Record<string, string> = { queued: "waits", running: "is being painted", failed: "failed", cancelled: "cancelled" };

function Card({ card, remove }: { card: RunCard; remove: (card: RunCard) => void }) {
  const [sure, setSure] = useState(false);
  return (
    <li class="card">
      <a href={to("run", card.id)} class="card-link">
        {card.files[0] ? <img src={card.files[0]} alt="" loading="lazy" /> : <span class="blank" />}
        <span class="card-prompt">{card.prompt}</span>
        <span class="dim">{STATES[card.state] ? `${STATES[card.state]} · ` : ""}{PRESETS[card.preset ?? "direct"]?.title ?? card.preset} · {ago(card.created)}</span>
      </a>
      <div class="card-foot">
        {sure ? (
          <>
            <button class="danger" autofocus onClick={() => remove(card)}>Delete it</button>
            <button class="quiet-button" onClick={() => setSure(false)}>Keep it</button>
          </>
        ) : (
          <button class="quiet-button" aria-label={`Delete: ${card.prompt}`} onClick={() => setSure(true)}><Icon name="trash" /></button>
        )}
      </div>
    </li>
  );
}
