// Small drawings are shown pixel by pixel, at a whole number of screen pixels for each of theirs; photographs smoothly.
import { useLayoutEffect, useRef, useState } from "preact/hooks";

const SMALL = 128;

type Props = { src: string | null; alt: string; waiting?: string; children?: preact.ComponentChildren };

export function Picture({ src, alt, waiting, children }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const [space, setSpace] = useState(0);
  const [natural, setNatural] = useState(0);
  useLayoutEffect(() => {
    const watch = new ResizeObserver(([entry]) => setSpace(entry.contentRect.width));
    watch.observe(box.current!);
    return () => watch.disconnect();
  }, []);
  const dots = space * devicePixelRatio;
  const times = natural ? Math.floor(dots / natural) : 0;
  const exact = natural <= SMALL && times >= 1;
  const width = exact ? `${(times * natural) / devicePixelRatio}px` : "100%";
  return (
    <div class="picture" ref={box}>
      <div class="picture-frame" style={{ width }}>
        {src ? (
          <img
            src={src} alt={alt} class={exact ? "exact" : ""} decoding="sync"
            onLoad={(event) => setNatural(event.currentTarget.naturalWidth)}
          />
        ) : (
          <div class="blank" role="img" aria-label={waiting ?? "Nothing painted yet"}><span>{waiting}</span></div>
        )}
        {children}
      </div>
    </div>
  );
}
