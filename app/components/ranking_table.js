// Labels reach the page through textContent only; nothing here builds HTML from data.
const make = (tag, cls, text) => { const el = document.createElement(tag); if (cls) el.className = cls; if (text !== undefined) el.textContent = text; return el; };
export default function ({ data, parentElement, setTriggerValue }) {
  const table = parentElement.querySelector("table"), body = table.querySelector("tbody");
  const had = [...body.rows].indexOf(table.getRootNode().activeElement);
  table.ariaLabel = data.title;
  table.classList.toggle("few", data.head.length < 8);
  table.querySelector("colgroup").replaceChildren(...data.head.map(([cls]) => make("col", cls)));
  const line = make("tr");
  for (const [cls, label, help, sorted] of data.head) {
    const th = make("th", `${["number", "name"].includes(cls) ? "left" : ""}${sorted ? " sorted" : ""}`, label);
    th.scope = "col"; th.title = help; if (sorted) th.ariaSort = "descending";
    line.append(th);
  }
  table.querySelector("thead").replaceChildren(line);
  const chosen = Math.max(0, data.rows.findIndex((row) => row.index === data.chosen));
  body.replaceChildren(...data.rows.map((row, r) => {
    const tr = make("tr"), number = make("td", "number"), link = make("a", "", `#${row.index}`), name = make("td", `name${row.labelled ? "" : " own"}`);
    tr.dataset.index = row.index; tr.tabIndex = r === chosen ? 0 : -1; tr.ariaCurrent = String(row.index === data.chosen);
    link.href = row.href; link.title = `Open feature ${row.index}`;
    number.append(link);
    const called = make("span", row.blurred ? "hidden" : "", row.name);
    if (row.blurred) called.ariaHidden = "true"; else name.title = row.labelled ? row.name : `${row.name} (provisional: the feature's own words)`;
    name.append(called);
    tr.append(number, name, ...row.cells.map(([text, small, title]) => {
      const td = make("td", "", text); td.title = title;
      if (small) td.append(make("small", "", small));
      return td;
    }));
    if (row.verdict) {
      const verdict = make("td"), tag = make("span", `tag ${row.verdict}`, row.verdict);
      tag.title = row.why; verdict.append(tag); tr.append(verdict);
    }
    return tr;
  }));
  if (had >= 0) body.rows[Math.min(had, data.rows.length - 1)]?.focus();
  table.onclick = (event) => {
    const tr = event.target.closest("tbody tr"), link = event.target.closest("a");
    if (!tr || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (link || !getSelection().toString()) setTriggerValue(link ? "visit" : "show", +tr.dataset.index);
  };
  table.onkeydown = (event) => {
    const tr = event.target.closest("tbody tr");
    if (!tr || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("a")) return;
    const rows = [...body.rows], now = rows.indexOf(tr), next = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (event.key === "Enter") setTriggerValue("show", +tr.dataset.index);
    else if (next !== undefined) {
      const to = rows[Math.max(0, Math.min(rows.length - 1, next))];
      tr.tabIndex = -1; to.tabIndex = 0; to.focus();
    } else if (!"rc".includes(event.key.toLowerCase())) return; // Streamlit would rerun or clear its caches on these two
    event.stopPropagation();
    event.preventDefault();
  };
}
