// Addresses are fragments (#/run/ID), so that the page is one static file. A part may be named by hand: each is decoded.
import { Store } from "./store";

const read = () => location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
export const route = new Store<string[]>(read());
addEventListener("hashchange", () => route.set(read()));

export const to = (...parts: string[]) => "#/" + parts.map(encodeURIComponent).join("/");
