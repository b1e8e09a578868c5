// Copies to the clipboard; where there is none (plain http from another machine) the text is shown selected, to be copied by hand.
const PAUSE = 1500;

function told(button, text) {
  button.textContent = text;
  clearTimeout(button.later);
  button.later = setTimeout(() => { button.textContent = button.dataset.label; }, PAUSE);
}

async function textOf(copy) {
  if (!copy.url) return copy.text.replaceAll("{page}", () => location.href.replace(/[{}\\]/g, encodeURIComponent));
  const answer = await fetch(copy.url), said = await answer.json();
  if (!answer.ok) throw new Error(said.error?.found ?? `The server answered ${answer.status}`);
  return JSON.stringify(said[copy.field]);
}

function shown(root, text, name) {
  const box = root.querySelector("textarea") ?? root.appendChild(document.createElement("textarea"));
  box.readOnly = true;
  box.setAttribute("aria-label", `The ${name}, selected`);
  box.value = text;
  box.focus();
  box.select();
}

async function press(root, button, copy) {
  let text;
  try { text = await textOf(copy); }
  catch (error) { button.title = String(error.message ?? error); told(button, "Not copied"); return; }
  try { await navigator.clipboard.writeText(text); root.querySelector("textarea")?.remove(); told(button, "Copied"); }
  catch { shown(root, text, copy.name); told(button, "Selected"); }
}

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".copier"), said = JSON.stringify(data.copies);
  if (root.dataset.said === said) return; // a rerun for another reason: what is shown stays
  root.dataset.said = said;
  root.replaceChildren(...data.copies.map((copy) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.label = button.textContent = `Copy ${copy.name}`;
    button.title = copy.help;
    button.onclick = () => press(root, button, copy);
    return button;
  }));
}
