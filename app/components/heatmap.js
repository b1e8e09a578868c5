// Corpus text reaches the page through textContent only; nothing here builds HTML from data.
const PAGE = 24, LEVELS = 8, SIDE = 4; // rows at first; steps of the scale; steps each side of the diverging one
const GLYPH = { "\n": "↵", "\t": "⇥", "\r": "␍", " ": "·" };
const BLANK = /^[\s\p{Cc}\p{Cf}]+$/u, BIDI = /[\u202a-\u202e\u2066-\u2069]/;
const memory = new WeakMap(); // the same key keeps the same parentElement across reruns

const make = (tag, cls, text) => {
  const el = document.createElement(tag);
  if (cls) el.className = cls;
  if (text !== undefined) el.textContent = text;
  return el;
};
const quote = (s) => JSON.stringify(s).slice(1, -1).replace(/[\p{Cc}\p{Cf}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
const num = (x) => (x < 0 ? "−" : "") + (Math.abs(x) >= 100 ? Math.abs(x).toFixed(0) : Math.abs(x) >= 10 ? Math.abs(x).toFixed(1) : Math.abs(x).toFixed(2));
const glyph = (c) => GLYPH[c] ?? (c < " " ? String.fromCharCode(0x2400 + c.charCodeAt(0)) : /\p{Cf}/u.test(c) ? "◌" : "·");

// The real characters stay in the DOM, so that selecting gives the corpus text; what is seen instead is CSS ::before.
function fill(el, text) {
  const blank = BLANK.test(text);
  for (const run of text.match(blank ? /./gsu : /[\x00-\x1f]|[^\x00-\x1f]+/g) ?? []) {
    if (!blank && run >= " ") { el.append(run); continue; }
    const mark = make("i", run === "\n" ? "ws nl" : "ws", run);
    mark.dataset.g = glyph(run);
    el.append(mark);
  }
}

class Heatmap {
  constructor(root) {
    this.root = root;
    this.bar = make("div", "bar");
    this.list = make("div", "list");
    this.foot = make("div"); // a list holds rows only
    this.live = make("div", "sr");
    this.tip = make("div", "tip");
    this.list.setAttribute("role", "list");
    this.live.setAttribute("aria-live", "polite");
    this.tip.popover = "manual"; // in the top layer no scrolling column clips it
    root.replaceChildren(this.bar, this.list, this.foot, this.live, this.tip);
    root.onmouseover = (e) => { const t = e.target.closest(".t"); if (t) this.show(t); else this.rest(); };
    root.onmouseleave = () => this.rest();
    root.onclick = (e) => this.click(e);
    root.onkeydown = (e) => this.key(e);
    this.list.onfocusout = (e) => { if (!this.list.contains(e.relatedTarget)) this.leave(); };
  }

  update(data) {
    const said = JSON.stringify(data);
    if (said === this.said) return; // a rerun for something else on the page must not move the focus
    const which = JSON.stringify(data.rows.map((row) => [row.texts.length, row.peak, row.acts[row.peak], row.texts[row.peak]]));
    if (which !== this.which) Object.assign(this, { shown: PAGE, open: new Set(), clear: new Set(), row: 0 });
    Object.assign(this, { said, which, data });
    this.root.classList.toggle("breaks", data.breaks);
    this.legend();
    this.draw();
  }

  legend() {
    const { vmax, scale, signed, rows, what } = this.data;
    const ramp = make("span", "ramp"), top = what ? `${num(vmax)} (${what})` : scale === "feature" ? `${num(vmax)} (feature max)` : "row’s own max";
    const steps = signed ? ["n4", "n3", "n2", "n1", "a0", "p1", "p2", "p3", "p4"] : [1, 2, 3, 4, 5, 6, 7, 8].map((k) => `a${k}`);
    ramp.append(...steps.map((step) => make("i", step)));
    ramp.setAttribute("role", "img");
    ramp.setAttribute("aria-label", `Colours from ${signed ? `−${top}` : "0"} to ${top}`);
    const keys = make("span", "keys");
    for (const [key, what] of [["↑↓", "rows"], ["←→", "tokens"], ["Enter", "pin"], ["Space", "expand"], ["Y", "copy"], ...(this.data.takes ? [["T", "try"]] : [])])
      keys.append(make("kbd", "", key), make("span", "", what));
    this.bar.replaceChildren(signed ? "−" : "0", ramp, signed ? `+${top}` : top, keys);
    this.bar.hidden = !rows.length;
  }

  level(row, i) {
    if (row.special.includes(i) || row.unscored.includes(i)) return "a0";
    const value = row.acts[i], own = row.peak < 0 ? 1 : Math.abs(row.acts[row.peak]);
    const share = Math.abs(value) / ((this.data.scale === "feature" ? this.data.vmax : own) || 1);
    const step = (n) => Math.min(n, Math.ceil(n * share));
    if (this.data.signed) return step(SIDE) ? `${value < 0 ? "n" : "p"}${step(SIDE)}` : "a0";
    return value > 0 ? `a${step(LEVELS)}` : "a0";
  }

  token(row, i, lead) {
    const kind = row.special.includes(i) ? " sp" : row.unscored.includes(i) ? " un" : i === row.peak ? " max" : "";
    let text = row.texts[i];
    const span = make("span", `t ${this.level(row, i)}${kind}${BIDI.test(text) ? " iso" : ""}`), out = [span];
    if (/^ \S/.test(text)) { text = text.slice(1); if (lead) out.unshift(" "); } // colour hugs the word, not the gap
    fill(span, text);
    span.dataset.i = i;
    return out;
  }

  drawRow(r) {
    const { rows, window, blur } = this.data, data = rows[r], n = data.texts.length, middle = Math.max(0, data.peak);
    const cut = window && (middle > window || middle + window + 1 < n), whole = !cut || this.open.has(r);
    const from = whole ? 0 : Math.max(0, middle - window), to = whole ? n : Math.min(n, middle + window + 1);
    const row = make("div", "row"), text = make("div", "text"), acts = make("div", "acts"), copy = make("button", "copy", "Copy");
    const value = data.peak < 0 ? 0 : data.acts[data.peak], hidden = blur && data.flagged && !this.clear.has(r);
    row.dataset.r = r;
    row.tabIndex = r === this.row ? 0 : -1;
    row.setAttribute("role", "listitem");
    const peak = data.peak < 0 ? "Not active" : `Maximum ${num(value)}`, word = data.peak < 0 ? "" : ` on ${quote(data.texts[data.peak].trim() || data.texts[data.peak])}`;
    const said = hidden ? `${peak}. The text is blurred: Enter shows it.` : `${peak}${word}. ${data.texts.slice(from, to).join("")}`;
    row.setAttribute("aria-label", `Example ${r + 1} of ${rows.length}. ${said}`);
    const button = (cls, label, title) => { const b = make("button", cls, label); b.tabIndex = -1; b.type = "button"; b.title = title; return b; };
    if (from > 0) text.append(button("edge", `+${from}`, `Show ${from} more tokens`));
    for (let i = from; i < to; i++) text.append(...this.token(data, i, i > from));
    if (to < n) text.append(button("edge", `+${n - to}`, `Show ${n - to} more tokens`));
    if (cut && whole) text.append(button("edge", "less", "Show the surroundings of the maximum only"));
    copy.tabIndex = -1;
    copy.type = "button";
    copy.setAttribute("aria-label", `Copy the text of example ${r + 1}`);
    acts.append(copy);
    if (this.data.takes && !hidden) acts.append(button("take", "Try", "Put this text into the box for your own (T)"));
    row.append(make("div", "val", num(value)), text, acts);
    if (hidden) {
      row.classList.add("hidden");
      text.inert = true;
      const cover = make("div", "cover");
      cover.append(text, button("reveal", "Offensive words: show", "Show this text (Enter)"));
      row.insertBefore(cover, acts);
    }
    return row;
  }

  draw() {
    const { rows } = this.data, focus = this.root.getRootNode().activeElement, held = this.list.contains(focus) || this.foot.contains(focus);
    let group = "";
    this.leave();
    this.list.replaceChildren();
    rows.slice(0, this.shown).forEach((row, r) => {
      if (row.group !== group) {
        group = row.group;
        const head = make("div", "group", group);
        head.setAttribute("role", "presentation");
        this.list.append(head);
      }
      this.list.append(this.drawRow(r));
    });
    const left = rows.length - this.shown;
    this.foot.replaceChildren(...(left > 0 ? [make("button", "more", `Show ${Math.min(left, PAGE)} more of ${left}`)] : []));
    if (held) this.at(this.row)?.focus();
    const kept = this.data.pinned == null ? null : this.list.querySelector(`.t[data-i="${this.data.pinned}"]`);
    if (kept) { this.pinned = kept; kept.classList.add("pin"); }
  }

  redraw(r) {
    this.leave();
    const fresh = this.drawRow(r);
    this.at(r).replaceWith(fresh);
    this.focus(fresh);
  }

  at(r) { return this.list.querySelector(`.row[data-r="${r}"]`); }

  focus(row) {
    const old = this.at(this.row);
    if (old) old.tabIndex = -1;
    this.row = +row.dataset.r;
    row.tabIndex = 0;
    row.focus();
  }

  show(t) {
    const data = this.data.rows[+t.closest(".row").dataset.r], i = +t.dataset.i, value = data.acts[i];
    const facts = [], share = this.data.vmax ? `${num((100 * value) / this.data.vmax).replace(/\.\d+$/, "")} %` : "";
    if (data.special.includes(i)) facts.push(["special token", "not scored"]);
    else {
      facts.push([this.data.what || "activation", num(value)]);
      if (data.unscored.includes(i)) facts.push(["template or sink", "not scored"]);
      else if (share && !this.data.what) facts.push(["of feature max", share]);
    }
    for (const [bytes, part] of data.parts[i] ?? []) facts.push([`bytes ${bytes}`, num(part)]);
    facts.push(["position", `${data.starts[i] + 1} of ${data.length}`], [data.ids[i].length > 1 ? "token ids" : "token id", data.ids[i].join(" ")]);
    const list = make("dl");
    for (const [what, said] of facts) list.append(make("dt", "", what), make("dd", "", said));
    this.tip.replaceChildren(make("b", "", `“${quote(data.texts[i])}”`), list);
    this.over = t;
    if (!this.tip.matches(":popover-open")) this.tip.showPopover();
    this.place();
  }

  place() {
    if (!this.over || !this.tip.matches(":popover-open")) return;
    const box = this.over.getClientRects()[0] ?? this.over.getBoundingClientRect(), { offsetWidth: w, offsetHeight: h } = this.tip;
    const below = box.bottom + 8 + h <= innerHeight;
    this.tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - w - 8))}px`;
    this.tip.style.top = `${Math.max(8, below ? box.bottom + 8 : box.top - h - 8)}px`;
  }

  // After the mouse: back to the pinned token, else to the keyboard's, else nothing.
  rest() {
    const t = this.pinned ?? this.now;
    if (t) this.show(t);
    else { this.over = null; if (this.tip.matches(":popover-open")) this.tip.hidePopover(); }
  }

  leave() {
    this.pinned?.classList.remove("pin");
    this.now?.classList.remove("at");
    this.pinned = this.now = null;
    this.rest();
  }

  pin(t) {
    const same = this.pinned === t;
    this.pinned?.classList.remove("pin");
    this.pinned = same ? null : t;
    this.pinned?.classList.add("pin");
    this.rest();
    if (this.data.pins) this.told?.(same ? null : +t.dataset.i);
  }

  walk(row, side) {
    const tokens = [...row.querySelectorAll(".t")], held = row.contains(this.now) ? tokens.indexOf(this.now) : -1;
    if (!tokens.length || row.classList.contains("hidden")) return;
    const first = Math.max(0, tokens.findIndex((t) => t.classList.contains("max")));
    const next = tokens[held < 0 ? first : Math.max(0, Math.min(tokens.length - 1, held + side))];
    this.now?.classList.remove("at");
    this.now = next;
    next.classList.add("at");
    this.show(next);
    const data = this.data.rows[+row.dataset.r], i = +next.dataset.i;
    this.live.textContent = `${quote(data.texts[i])}, ${data.special.includes(i) ? "not scored" : num(data.acts[i])}`;
  }

  toggle(set, r) { if (!set.delete(r)) set.add(r); this.redraw(r); }

  async copy(row) {
    const button = row.querySelector(".copy"), text = this.data.rows[+row.dataset.r].texts.join("");
    try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; }
    catch { getSelection().selectAllChildren(row.querySelector(".text")); button.textContent = "Selected"; } // plain http has no clipboard
    this.live.textContent = button.textContent;
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }

  click(event) {
    const hit = (cls) => event.target.closest(cls), row = hit(".row");
    if (hit(".more")) { this.shown += PAGE; this.draw(); }
    else if (!row) return;
    else if (hit(".copy")) this.copy(row);
    else if (hit(".take")) this.taken?.(+row.dataset.r);
    else if (hit(".edge")) this.toggle(this.open, +row.dataset.r);
    else if (hit(".cover")) this.toggle(this.clear, +row.dataset.r);
    else if (hit(".t")) this.pin(hit(".t"));
  }

  key(event) {
    const row = event.target.closest(".row");
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("button") && ["Enter", " "].includes(event.key)) return; // they press it
    const r = +row.dataset.r, rows = [...this.list.querySelectorAll(".row")], at = rows.indexOf(row), name = event.key.length > 1 ? event.key : event.key.toLowerCase();
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[name];
    const act = {
      ArrowRight: () => this.walk(row, 1),
      ArrowLeft: () => this.walk(row, -1),
      Enter: () => {
        if (row.classList.contains("hidden")) { this.toggle(this.clear, r); return; }
        if (!row.contains(this.now)) this.walk(row, 0);
        if (this.now) this.pin(this.now);
      },
      " ": () => this.toggle(this.open, r),
      y: () => this.copy(row),
      t: () => { if (row.querySelector(".take")) this.taken?.(r); },
      Escape: () => this.leave(),
      r: () => {}, // Streamlit would rerun or clear its caches on these two
      c: () => {},
    }[name];
    if (to !== undefined) { this.leave(); if (rows[to]) this.focus(rows[to]); }
    else if (act) act();
    else return;
    event.stopPropagation();
    event.preventDefault();
  }
}

export default function ({ data, parentElement, setStateValue, setTriggerValue }) {
  const root = parentElement.querySelector(".hm");
  let map = memory.get(parentElement);
  if (map?.root !== root) memory.set(parentElement, (map = new Heatmap(root)));
  map.told = (unit) => setStateValue("pin", unit);
  map.taken = (row) => setTriggerValue("take", row);
  map.update(data);
  const ear = listening(parentElement);
  const place = () => map.place();
  addEventListener("scroll", place, { capture: true, passive: true, signal: ear.signal });
  addEventListener("resize", place, { signal: ear.signal });
  return () => {
    ear.abort();
    if (!root.isConnected) map.leave();
  };
}
