// What the server says once and pages read often, or read anew when something changes.
import { useEffect, useState } from "preact/hooks";
import { api, type PlanInfo } from "./api";

export type Answer<T> = { value: T | null; error: string | null };

/** The answer to a question that depends on `keys`; the last one stays until the next is there. */
export function useAnswer<T>(ask: () => Promise<T>, keys: unknown[]): Answer<T> & { again: () => void } {
  const [answer, setAnswer] = useState<Answer<T>>({ value: null, error: null });
  const [count, setCount] = useState(0);
  useEffect(() => {
    let wanted = true;
    ask().then(
      (value) => wanted && setAnswer({ value, error: null }),
      (error: Error) => wanted && setAnswer((before) => ({ value: before.value, error: error.message })),
    );
    return () => { wanted = false; };
  }, [...keys, count]);
  return { ...answer, again: () => setCount((before) => before + 1) };
}

let planning: Promise<PlanInfo> | null = null;

/** What plans can hold; asked for once, and again after a failure. */
export function usePlan(): Answer<PlanInfo> {
  return useAnswer(() => (planning ??= api.plan().catch((error) => { planning = null; throw error; })), []);
}
