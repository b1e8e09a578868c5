"""JavaScript that a component begins with to hear keys or scrolling beyond its own elements."""

LISTENING = """
const ears = new WeakMap();
// What an element's listeners are tied to. Other data comes without the component being unmounted in between, so the ones before are let go
// here; and what a component returns may be called by Streamlit after the next has begun to listen: it ends its own alone.
const listening = (element) => {
  ears.get(element)?.abort();
  const ear = new AbortController();
  ears.set(element, ear);
  return ear;
};
"""
