// Light, dark, or what the system says; kept in the browser.
import { Store } from "./store";

export type Theme = "system" | "light" | "dark";
const THEMES: Theme[] = ["system", "light", "dark"];

function kept(): Theme {
  const value = localStorage.getItem("theme") as Theme | null;
  return value && THEMES.includes(value) ? value : "system";
}

export const theme = new Store<Theme>(kept());

export function choose(value: Theme): void {
  if (value === "system") {
    localStorage.removeItem("theme");
    delete document.documentElement.dataset.theme;
  } else {
    localStorage.setItem("theme", value);
    document.documentElement.dataset.theme = value;
  }
  theme.set(value);
}

export const next = (value: Theme): Theme => THEMES[(THEMES.indexOf(value) + 1) % THEMES.length];
