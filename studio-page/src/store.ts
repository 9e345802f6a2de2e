// A value that outlives the page that shows it, and redraws whoever uses it.
import { useEffect, useReducer } from "preact/hooks";

export class Store<T> {
  private readers = new Set<() => void>();
  constructor(public value: T) {}
  set(value: T): void {
    this.value = value;
    for (const read of [...this.readers]) read();
  }
  patch(part: Partial<T>): void {
    this.set({ ...this.value, ...part });
  }
  subscribe(read: () => void): () => void {
    this.readers.add(read);
    return () => this.readers.delete(read);
  }
}

export function useStore<T>(store: Store<T>): T {
  const [, redraw] = useReducer((count: number) => count + 1, 0);
  useEffect(() => store.subscribe(() => redraw(undefined as never)), [store]);
  return store.value;
}
