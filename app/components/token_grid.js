// Text of tokens and labels reaches the page through textContent only.
const make = (tag, cls, text) => { const el = document.createElement(tag); if (cls) el.className = cls; if (text !== undefined) el.textContent = text; return el; };
const GLYPH = { "\n": "↵", "\t": "⇥", " ": "·" };
const seen = (text) => text.trim() ? text.trim() : [...text].map((c) => GLYPH[c] ?? "·").join("") || "·";
export default function ({ data, parentElement, setTriggerValue }) {
  const table = parentElement.querySelector("table"), head = table.querySelector("thead"), body = table.querySelector("tbody");
  const at = table.getRootNode().activeElement, held = at?.dataset ? [at.dataset.token, at.dataset.feature] : [];
  const button = (kind, value, text, title, on) => {
    const b = make("button", on ? "on" : "", text);
    b.type = "button"; b.dataset[kind] = value; b.title = title; b.ariaPressed = String(on);
    return b;
  };
  const line = make("tr"), corner = make("td");
  line.append(corner, ...data.tokens.map((text, i) => {
    const th = make("th"); th.scope = "col";
    th.append(button("token", i, seen(text), `Features on ${JSON.stringify(text)}`, i === data.token));
    return th;
  }));
  head.replaceChildren(line);
  body.replaceChildren(...data.rows.map((row) => {
    const tr = make("tr", row.index === data.feature ? "on" : ""), th = make("th"), cells = data.tokens.map(() => make("td"));
    th.scope = "row";
    const b = button("feature", row.index, `#${row.index} `, row.blurred ? `Feature ${row.index} on the text` : row.name, row.index === data.feature);
    b.append(make("span", row.blurred ? "hidden" : "", row.name));
    th.append(b);
    for (const [column, level, words] of row.cells) {
      cells[column].className = `a${level}`;
      cells[column].title = `#${row.index} on ${JSON.stringify(data.tokens[column])}: ${words}`;
      cells[column].dataset.token = column; cells[column].dataset.of = row.index;
      cells[column].append(make("i", "", words)); // for those who hear the page
    }
    if (data.token != null) cells[data.token]?.classList.add("col");
    tr.append(th, ...cells);
    return tr;
  }));
  const again = held[0] !== undefined ? `button[data-token="${held[0]}"]` : held[1] !== undefined ? `button[data-feature="${held[1]}"]` : "";
  if (again) table.querySelector(again)?.focus();
  table.onclick = (event) => {
    const b = event.target.closest("button, td[data-of]");
    if (!b) return;
    if (b.dataset.of !== undefined) setTriggerValue("feature", +b.dataset.of);
    else if (b.dataset.token !== undefined) setTriggerValue("token", +b.dataset.token);
    else setTriggerValue("feature", +b.dataset.feature);
  };
  table.onkeydown = (event) => {
    const now = event.target.closest("button");
    if (!now || event.ctrlKey || event.metaKey || event.altKey) return;
    const kind = now.dataset.token !== undefined ? "token" : "feature", all = [...table.querySelectorAll(`button[data-${kind}]`)];
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) all[Math.max(0, Math.min(all.length - 1, all.indexOf(now) + step))].focus();
    else if (!"rc".includes(event.key.toLowerCase())) return; // Streamlit would rerun or clear its caches on these two
    event.stopPropagation(); event.preventDefault();
  };
}
