// Text to take along: a tab for each form, and a button that copies it.
import { useState } from "preact/hooks";
import { Icon } from "./Icon";

export function Copy({ forms }: { forms: { name: string; text: string }[] }) {
  const [at, setAt] = useState(0);
  const [said, setSaid] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(forms[at].text);
      setSaid("Copied");
    } catch {
      setSaid("The browser does not allow copying here; select the text instead");
    }
    setTimeout(() => setSaid(""), 2500);
  };
  const turn = (event: KeyboardEvent) => {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!step) return;
    const to = (at + step + forms.length) % forms.length;
    setAt(to);
    (event.currentTarget as Element).querySelectorAll<HTMLElement>("[role=tab]")[to].focus();
  };
  return (
    <div class="copy">
      <div class="copy-head">
        <div role="tablist" aria-label="Recipe" onKeyDown={turn}>
          {forms.map((form, i) => (
            <button key={form.name} role="tab" id={`tab-${i}`} aria-selected={i === at} aria-controls="recipe" tabIndex={i === at ? 0 : -1} onClick={() => setAt(i)}>{form.name}</button>
          ))}
        </div>
        <button class="quiet-button" onClick={copy}><Icon name="copy" />Copy</button>
        <span role="status" class="dim">{said}</span>
      </div>
      <pre id="recipe" role="tabpanel" aria-labelledby={`tab-${at}`} tabIndex={0}><code>{forms[at].text}</code></pre>
    </div>
  );
}
