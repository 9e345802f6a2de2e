// Runs that are being watched: asking for one (and waiting while the studio is busy), following its events, cancelling.
import { api, Refused, type RunRequest, type State } from "./api";
import type { RunEvent } from "./events";
import { Store } from "./store";
import { take, tell, type Story } from "./story";

export type Live = {
  request: RunRequest; id: string | null; state: State | "asking" | "busy"; position: number | null;
  /** Seconds until the next try, while the studio is busy. */
  wait: number; error: string | null; lost: boolean; events: RunEvent[]; story: Story;
};

/** What the studio says itself, between and after the events of a run. */
type Said =
  | { event: "queued"; position: number }
  | { event: "restarted" }
  | { event: "done" | "failed" | "cancelled"; error?: string };

export class Run extends Store<Live> {
  private source: EventSource | null = null;
  private drawing = false;
  private stopped = false;

  constructor(request: RunRequest) {
    super({ request, id: null, state: "asking", position: null, wait: 0, error: null, lost: false, events: [], story: tell([]) });
  }

  get busy(): boolean {
    return ["asking", "busy", "queued", "running"].includes(this.value.state);
  }

  /** Asks for the run; again after as long as the studio says, while it is busy. Returns its seed, or null. */
  async start(): Promise<number | null> {
    while (!this.stopped) {
      try {
        const { id, seed, position } = await api.start(this.value.request);
        if (this.stopped) await api.cancel(id);
        else {
          this.patch({ id, position, state: position > 0 ? "queued" : "running" });
          this.follow(id);
        }
        return seed;
      } catch (error) {
        if (!(error instanceof Refused) || error.wait === null) {
          this.patch({ state: "failed", error: (error as Error).message });
          return null;
        }
        for (let left = Math.max(1, error.wait); left > 0 && !this.stopped; left--) {
          this.patch({ state: "busy", wait: left, error: error.message });
          await new Promise((resolve) => setTimeout(resolve, 1000));
        }
        this.patch({ error: null });
      }
    }
    return null;
  }

  /** Takes the events of a run as they come; the browser asks again for what it missed if the connection breaks. */
  follow(id: string): void {
    this.value.id = id;
    this.source = new EventSource(`api/runs/${id}/events`);
    this.source.onmessage = ({ data }) => this.hear(JSON.parse(data));
    this.source.onopen = () => this.value.lost && this.patch({ lost: false });
    this.source.onerror = () => {
      if (!this.busy) return;
      if (this.source?.readyState === EventSource.CLOSED) this.patch({ state: "failed", error: "The studio no longer tells of this run. It may have been restarted; look for the run in the gallery." });
      else this.patch({ lost: true });
    };
  }

  private hear(event: RunEvent | Said): void {
    switch (event.event) {
      case "queued": return this.patch({ position: event.position, state: "queued" });
      case "restarted": return this.patch({ events: [], story: tell([]) });
      case "done": case "failed": case "cancelled":
        this.source?.close();
        return this.patch({ state: event.event, error: event.error ?? null, lost: false });
    }
    this.value.events.push(event);
    take(this.value.story, event);
    this.value.state = "running";
    // Many events may come at once, as in a replay; one drawing shows them all.
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.patch({});
    });
  }

  async cancel(): Promise<void> {
    this.stopped = true;
    const { id } = this.value;
    this.patch({ state: "cancelled", error: null });
    this.source?.close();
    if (id) await api.cancel(id).catch((error: Error) => this.patch({ error: error.message }));
  }

  /** Stops listening; the run itself goes on. */
  leave(): void {
    this.stopped = true;
    this.source?.close();
  }
}
