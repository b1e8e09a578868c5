// The keys of the whole app. Everything shown here is ours; text still goes in through textContent only.
const make = (tag, text) => { const el = document.createElement(tag); if (text !== undefined) el.textContent = text; return el; };
const typing = (e) => e && (e.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(e.tagName));
const deep = () => { let e = document.activeElement; while (e?.shadowRoot?.activeElement) e = e.shadowRoot.activeElement; return e; };
const box = () => document.querySelector('input[type="search"]');
const WAITING = "persona-explorer-search";
export default function ({ data, parentElement, setTriggerValue }) {
  const ear = listening(parentElement);
  const sheet = parentElement.querySelector("dialog");
  const draw = () => {
    sheet.replaceChildren(make("p", data.about), make("h2", "Keys"));
    for (const [title, keys] of data.keys) {
      const list = make("dl");
      for (const [key, what] of keys) {
        const dt = make("dt");
        for (const k of key.split(" ")) dt.append(make("kbd", k));
        list.append(dt, make("dd", what));
      }
      sheet.append(make("h3", title), list);
    }
    sheet.append(make("p", "Letters work while no box has the cursor: Escape leaves a box."));
  };
  const toSearch = (tries = 30) => {
    const found = box();
    if (found) { found.focus(); found.select(); } else if (tries) setTimeout(toSearch, 50, tries - 1);
  };
  const here = new URL(location.href);
  for (const [key, value] of Object.entries(data.query)) here.searchParams.set(key, value);
  const said = new URL(location.href).searchParams;
  if (Object.entries(data.query).some(([key, value]) => said.get(key) !== value)) history.replaceState(history.state, "", here);
  if (data.search && sessionStorage.getItem(WAITING)) { sessionStorage.removeItem(WAITING); toSearch(); }
  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const active = deep();
    if (typing(active)) {
      if (event.key !== "Escape") return;
      if (active.type === "search") { event.preventDefault(); event.stopPropagation(); } // leave the box, keep the words
      active.blur();
      return;
    }
    if (event.key === "/") {
      event.preventDefault();
      if (data.search) toSearch(); else { sessionStorage.setItem(WAITING, "1"); setTriggerValue("search", true); }
    } else if (event.key === "?") {
      event.preventDefault();
      if (sheet.open) sheet.close(); else { draw(); sheet.showModal(); }
    }
  };
  sheet.onclick = (event) => { if (event.target === sheet) sheet.close(); };
  const app = document.querySelector('[data-testid="stApp"]'); // popovers hang outside it: what the theme is, they hear from the page
  const tell = () => { document.documentElement.style.colorScheme = getComputedStyle(app).colorScheme; };
  const theme = new MutationObserver(tell);
  theme.observe(app, { attributes: true, attributeFilter: ["class"] });
  tell();
  document.addEventListener("keydown", onKey, { capture: true, signal: ear.signal });
  ear.signal.addEventListener("abort", () => theme.disconnect());
  sheet.dataset.listening = data.keys[0][0]; // what a test waits for: the page that it listens on
  return () => ear.abort();
}
