import { render } from "preact";
import "./style/fonts.css";
import "./style/base.css";
import "./style/frame.css";
import "./style/form.css";
import "./style/stage.css";
import "./style/lists.css";
import { App } from "./app";
import { choose, theme } from "./theme";

choose(theme.value);
render(<App />, document.getElementById("page")!);
