"""What a reader needs of a page: text that stands out from its ground, and a name for everything that is read out."""

CONTRAST = """() => {
  const parse = color => {
    const numbers = color.match(/[\\d.]+/g).map(Number);
    if (color.startsWith('color(')) for (let i = 0; i < 3; i++) numbers[i] *= 255;
    return numbers.length < 4 ? [...numbers, 1] : numbers;
  };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3]));
  const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = c => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => sum + w * linear(c[i] / 255), 0);
  const ground = element => {
    const way = [];
    for (let e = element; e; e = e.parentElement) way.unshift(parse(getComputedStyle(e).backgroundColor));
    return way.reduce((below, color) => over(color, below), [255, 255, 255]);
  };
  const hidden = ':disabled, svg, noscript, .sr-only, [type=file]';
  const bad = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
    if (!text || !element.checkVisibility() || element.closest(hidden)) continue;
    const style = getComputedStyle(element), back = ground(element);
    const [high, low] = [luminance(over(parse(style.color), back)), luminance(back)].sort((x, y) => y - x);
    const least = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < least) bad.push(`${ratio.toFixed(2)} ${element.className}: ${text.slice(0, 40)}`);
  }
  return bad;
}"""

SPOKEN = {
    "button",
    "link",
    "textbox",
    "searchbox",
    "combobox",
    "checkbox",
    "radio",
    "slider",
    "spinbutton",
    "image",
    "tab",
}


def nameless(page) -> list[str]:
    """Roles in the browser's accessibility tree that would be read out without a name."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    return [
        role
        for node in nodes
        if not node["ignored"] and (role := node["role"]["value"]) in SPOKEN and not node.get("name", {}).get("value")
    ]
