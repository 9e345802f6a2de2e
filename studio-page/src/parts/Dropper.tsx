// A place for a picture: dropped, chosen, or pasted. The studio checks it by decoding it and gives it a number.
import { useState } from "preact/hooks";
import { api, uploaded } from "../api";
import { Icon } from "./Icon";
import { Problem } from "./Status";

export type Given = { id: string; width: number; height: number; name: string };

type Props = { label: string; given: Given | null; take: (given: Given) => void; id: string };

export function Dropper({ label, given, take, id }: Props) {
  const [over, setOver] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const receive = async (files: FileList | null | undefined) => {
    const file = files?.[0];
    if (!file) return;
    setBusy(true);
    setError(null);
    try {
      take({ ...(await api.upload(file)), name: file.name });
    } catch (failure) {
      setError((failure as Error).message);
    }
    setBusy(false);
  };
  return (
    <div
      class={`dropper ${over ? "over" : ""} ${given ? "full" : ""}`}
      onDragOver={(event) => { event.preventDefault(); setOver(true); }} onDragLeave={() => setOver(false)}
      onDrop={(event) => { event.preventDefault(); setOver(false); void receive(event.dataTransfer?.files); }}
      onPaste={(event) => void receive(event.clipboardData?.files)}
    >
      {given && <img src={uploaded(given.id)} alt={given.name} class={given.width <= 128 ? "exact" : ""} />}
      <div>
        <label for={id}>{label}</label>
        <input id={id} type="file" accept="image/png,image/jpeg,image/webp" onChange={(event) => void receive(event.currentTarget.files)} />
        <small role="status">{busy ? "The studio looks at it" : given ? `${given.name}, ${given.width} × ${given.height}` : <><Icon name="picture" />or drop it here</>}</small>
      </div>
      {error && <Problem text={error} />}
    </div>
  );
}
