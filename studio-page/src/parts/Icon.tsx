// Line drawings on a 24 grid, in the colour of the text.
const PATHS: Record<string, string> = {
  tick: "M5 12.5l4.5 4.5L19 7.5",
  cross: "M6 6l12 12M18 6L6 18",
  again: "M19 12a7 7 0 1 1-2.2-5.100M19 4v4h-4",
  star: "M12 4.5l2.3 4.8 5.2.7-3.8 3.6.9 5.200L12 16.300l-4.6 2.5.9-5.200L4.5 10l5.2-.7z",
  brush: "M14 6l4 4L9.5 18.5 5 19l.5-4.5zM12 8l4 4",
  picture: "M4 5h16v14H4zM4 16l5-5 4 4 2.5-2.5L20 17M15.5 9.5h.01",
  context: "M4 6h7v7H4zM14 7h6M14 11h6M4 17h16",
  compare: "M4 5h7v14H4zM13 5h7v14h-7z",
  gallery: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  report: "M5 20V10M12 20V4M19 20v-7",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.300l1.4 1.400M17.3 17.300l1.4 1.400M5.3 18.700l1.4-1.400M17.3 6.700l1.4-1.4",
  moon: "M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10z",
  half: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zM12 4v16M12 8l5.5-1M12 12h8M12 16l5.5 1",
  play: "M8 5.5v13l10-6.5z",
  pause: "M8 5v14M16 5v14",
  back: "M15 5l-7 7 7 7",
  next: "M9 5l7 7-7 7",
  up: "M5 15l7-7 7 7",
  down: "M5 9l7 7 7-7",
  copy: "M9 9h10v11H9zM15 9V4H5v11h4",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l1 13h8l1-13",
  plus: "M12 5v14M5 12h14",
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM15.5 15.5L20 20",
};

export function Icon({ name }: { name: string }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} fill="none" stroke="currentColor" stroke-width="1.7" stroke-linecap="round" stroke-linejoin="round" />
    </svg>
  );
}
