// Labels and corpus text reach the page through textContent only; nothing here builds HTML from data.
const COLUMNS = [
  ["i", "#", "index", "Number of the feature in its SAE"],
  ["name", "label", "title", "The label, or in grey the feature's own words"],
  ["max", "max", "max", "Largest activation in the corpus, in SAE units"],
  ["density", "density", "density", "Share of scored tokens on which it is active"],
  ["promoted", "promoted next", null, "Tokens that it makes more likely, strongest first"],
  ["text", "strongest example", null, "Where in the corpus it fires most; the darkest colour is the feature's maximum"],
];
const GLYPH = { "\n": "↵", "\t": "⇥", "\r": "␍" };
const make = (tag, cls, text) => {
  const el = document.createElement(tag);
  if (cls) el.className = cls;
  if (text !== undefined) el.textContent = text;
  return el;
};
const visible = (text) => text.replace(/[\n\t\r]/g, (c) => GLYPH[c]);
const memory = new WeakMap(); // where the keyboard was; the same key keeps the same parentElement

const cover = (hidden) => { // what lies in it is read by whoever goes to the row or opens the feature
  const el = make("span", hidden ? "hidden" : "");
  if (hidden) el.ariaHidden = "true";
  return el;
};

function example(cell, units) {
  for (const [text, level, peak, special] of units) {
    let shown = visible(text);
    if (/^ \S/.test(shown)) { cell.append(" "); shown = shown.slice(1); } // colour hugs the word, not the gap
    cell.append(make("span", `t a${level}${peak ? " max" : ""}${special ? " sp" : ""}`, shown));
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const table = parentElement.querySelector("table");
  const head = table.querySelector("thead"), body = table.querySelector("tbody");
  table.querySelector("colgroup")?.remove();
  const focused = table.getRootNode().activeElement; // what has it is about to be replaced
  const cols = make("colgroup"), line = make("tr"), row = [...body.rows].indexOf(focused), column = focused?.dataset.sort;
  for (const [cls, label, column, help] of COLUMNS) {
    cols.append(make("col", cls));
    const th = make("th", ["i", "max", "density"].includes(cls) ? `${cls} n` : cls);
    th.scope = "col";
    th.title = help;
    if (column) {
      const button = make("button", "", label);
      button.dataset.sort = column;
      if (data.sort === column) th.ariaSort = data.descending ? "descending" : "ascending";
      th.append(button);
    } else th.textContent = label;
    line.append(th);
  }
  table.prepend(cols);
  head.replaceChildren(line);

  const at = Math.min(row < 0 ? memory.get(parentElement) ?? 0 : row, Math.max(0, data.rows.length - 1));
  body.replaceChildren(...data.rows.map((row, r) => {
    const tr = make("tr");
    tr.tabIndex = r === at ? 0 : -1;
    tr.dataset.index = row.index;
    const name = make("td", `name${row.labelled ? "" : " own"}`), link = make("a"), called = cover(row.blurred.name);
    called.textContent = row.name || "no words of its own";
    link.append(called);
    link.href = row.href; // a new tab with Ctrl or the middle button
    link.tabIndex = -1;
    if (!row.blurred.name) link.title = row.labelled ? row.name : `${row.name} (provisional: the feature's own words)`;
    name.append(link);
    const promoted = make("td", "promoted"), pieces = cover(row.blurred.promoted), text = make("td", "text");
    pieces.append(...row.promoted.map((piece) => make("span", "", piece)));
    promoted.append(pieces);
    if (!row.blurred.promoted) promoted.title = row.promoted.join("   ");
    if (row.dead) text.textContent = "fires nowhere in this corpus";
    else { const shown = cover(row.blurred.text); example(shown, row.units); text.append(shown); }
    tr.append(make("td", "i n", row.index), name, make("td", "n", row.max), make("td", "n", row.density), promoted, text);
    return tr;
  }));
  if (row >= 0) body.rows[at]?.focus();
  else if (column) head.querySelector(`[data-sort="${column}"]`)?.focus();

  const open = (tr) => setTriggerValue("open", +tr.dataset.index);
  table.onclick = (event) => {
    const sort = event.target.closest("[data-sort]"), tr = event.target.closest("tbody tr");
    if (sort) setTriggerValue("sort", sort.dataset.sort);
    else if (tr && !(event.ctrlKey || event.metaKey || event.shiftKey)) {
      event.preventDefault();
      if (!getSelection().toString()) open(tr);
    }
  };
  table.onkeydown = (event) => {
    const tr = event.target.closest("tbody tr");
    if (!tr || event.ctrlKey || event.metaKey || event.altKey) return;
    const rows = [...body.rows], now = rows.indexOf(tr);
    const next = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (event.key === "Enter") open(tr);
    else if (next !== undefined) {
      const to = rows[Math.max(0, Math.min(rows.length - 1, next))];
      tr.tabIndex = -1; to.tabIndex = 0; to.focus();
      memory.set(parentElement, rows.indexOf(to));
    } else if (!"rc".includes(event.key.toLowerCase())) return; // Streamlit would rerun or clear its caches on these two
    event.stopPropagation();
    event.preventDefault();
  };
}
