"""Compare's second tab, its left side: the rows, how the fine-tune goes, and the button that begins it."""

from functools import partial

import streamlit as st

from app import state, trained
from app.engine import Engine
from app.facts import veiled
from explorer.adapters import known
from explorer.cache import Cache
from explorer.errors import ExplorerError, UsageError
from explorer.finetune import Conversation, FinetunePlan, rows_of

S = st.session_state
FOCUS, ERROR, UPLOAD, SAID = "train-focus", "train-error", "train-upload", "train-said"
SHOWN, TEXT = 3, 220
"""Rows that are shown; characters of a text in them."""
USUAL = FinetunePlan()
DEFAULTS = {
    "data": None, "name": "", "rank": USUAL.rank, "layers": "", "lr": USUAL.lr, "steps": USUAL.steps, "every": USUAL.every,
    "seed": USUAL.seed, "start": None,
}  # fmt: skip
Rows = tuple[Conversation, ...]


def key(name: str) -> str:
    return f"train-{name}"


def keep_fields() -> None:
    """Bring the boxes to what they held when the page was left: Streamlit forgets boxes that are not drawn."""
    held = {**DEFAULTS, **S.get(SAID, {})}
    for name, value in held.items():
        S.setdefault(key(name), value)
    S[SAID] = {name: S[key(name)] for name in DEFAULTS}


def take_upload() -> None:
    """Read what was uploaded; for the uploader's callback."""
    S.pop(ERROR, None)
    upload = S.get(key("file"))
    if upload is None:
        return
    S.pop(UPLOAD, None)
    try:
        S[UPLOAD] = (upload.name, tuple(rows_of(upload.getvalue(), upload.name)))
        S[key("data")] = upload.name
    except ExplorerError as error:
        S[UPLOAD] = (upload.name, error)
        S[key("data")] = upload.name


def said_rows(cache: Cache) -> tuple[str, Rows] | None:
    """The rows that are chosen; None where none are.

    Raises:
        CorpusError: If they cannot be read.
    """
    name, (upload, there) = S.get(key("data")), S.get(UPLOAD, ("", ()))
    if name is None:
        return None
    if name == upload:
        if isinstance(there, ExplorerError):
            raise there
        return name, there
    return name, trained.rows_in(trained.files(cache)[name])


def plan() -> FinetunePlan:
    """How the boxes say that it goes.

    Raises:
        UsageError: If that makes no sense.
    """
    said = {name: S[key(name)] for name in ("steps", "rank", "lr", "every", "seed")}
    if empty := [name for name, value in said.items() if value is None]:
        raise UsageError(f"{empty[0]} is empty", expected="a number", do="Fill it in")
    return FinetunePlan(layers=trained.layers(S[key("layers")]), **said)


def start(cache: Cache, engine: Engine) -> None:
    """Begin the training; for the button's callback."""
    S.pop(ERROR, None)
    try:
        if (chosen := said_rows(cache)) is None:
            raise UsageError("There are no rows", do="Choose a set or upload one")
        before = S[key("start")]
        if before and before not in known(cache.path):
            raise UsageError(f"The adapter {before} is not here any more", do="Choose another one")
        name = S[key("name")].strip()
        asked = trained.Asked(name, *chosen, plan(), known(cache.path)[before] if before else None)
        S[FOCUS] = trained.begin(engine, asked)
    except ExplorerError as error:
        S[ERROR] = error


# --- what is drawn


def form(cache: Cache, engine: Engine) -> None:
    """Rows, settings, how long it takes, and Start."""
    keep_fields()
    chosen = rows_part(cache)
    st.html('<p class="sec">How it goes</p>')
    settings(cache)
    if chosen:
        words(engine, chosen[1])
    busy = trained.under_way(engine)
    st.button(
        "Start", type="secondary" if busy else "primary", icon=":material/play_arrow:", key=key("go"),
        on_click=partial(start, cache, engine), disabled=chosen is None, help=None if chosen else "Choose rows first",
    )  # fmt: skip
    if error := S.get(ERROR):
        state.show_error(error)
    if busy:
        st.html(
            f'<p class="say words" role="status">{veiled(busy[0].asked.name)} is being trained; one training runs at a time, so another one '
            "waits for its turn.</p>"
        )


def rows_part(cache: Cache) -> tuple[str, Rows] | None:
    """Choose rows, and see what was read of them."""
    options = list(trained.files(cache))
    if (upload := S.get(UPLOAD, ("",))[0]) and upload not in options:
        options.append(upload)
    if S[key("data")] not in options:
        S[key("data")] = None
    # drawn also where it is empty: what a session keeps under the key of no widget would come back when the page is left
    st.selectbox(
        "Rows", options, key=key("data"), disabled=not options,
        placeholder="Choose a set that is here" if options else "There are no sets here yet",
    )  # fmt: skip
    st.file_uploader(
        "or your own, as JSONL in OpenAI’s form", type=["jsonl"], key=key("file"), max_upload_size=trained.MOST_MB, on_change=take_upload,
        help='{"messages": [{"role", "content"}, …]} a line; the last answer of each is learnt. It stays on this machine.',
    )  # fmt: skip
    try:
        chosen = said_rows(cache)
    except ExplorerError as error:
        state.show_error(error)
        return None
    if chosen is None:
        st.html(
            '<p class="say">A row is a question and the answer that is to be learnt. A few hundred rows of one kind are plenty.</p>'
        )
        return None
    first = "".join(preview(row) for row in chosen[1][:SHOWN])
    st.html(
        f'<p class="say num" role="status"><b>{len(chosen[1]):,}</b> rows read; the first {min(SHOWN, len(chosen[1]))}:</p>{first}'
    )
    return chosen


def preview(row: Conversation) -> str:
    """A row as HTML."""
    *before, answer = row
    asked = next((m["content"] for m in reversed(before) if m["role"] == "user"), "")
    more = f'<span class="dim"> ({len(before)} messages before the answer)</span>' if len(before) > 1 else ""
    return f'<div class="said"><p class="say words">{_cut(asked)}{more}</p><p class="words">{_cut(answer["content"])}</p></div>'


def _cut(text: str) -> str:
    return veiled(text, 0, TEXT) + ("…" if len(text) > TEXT else "")


def settings(cache: Cache) -> None:
    """The boxes."""
    here = list(known(cache.path))
    if S[key("start")] not in here:
        S[key("start")] = None
    left, right = st.columns(2)
    left.text_input(
        "Name", key=key("name"), max_chars=80, placeholder="kind-gardening", help="Small letters, digits and hyphens"
    )
    right.selectbox(
        "Go on from", here, index=None, key=key("start"), placeholder="the model as it is", disabled=not here,
        help="An adapter that is trained further; its rank and layers are kept." if here else "There are no adapters here yet.",
    )  # fmt: skip
    going_on = S[key("start")] is not None
    one, two, three = st.columns(3)
    one.number_input("Steps", 1, 5000, key=key("steps"), help=f"{USUAL.batch} rows each")
    two.number_input(
        "Save every", 1, 5000, key=key("every"), help="Steps between checkpoints; the last step is always one."
    )
    three.number_input(
        "Learning rate", 1e-6, 1.0, key=key("lr"), format="%g", step=1e-4, help="Its peak; it warms up and then falls."
    )
    one, two, three = st.columns(3)
    one.number_input("Rank", 1, 256, key=key("rank"), disabled=going_on, help="Of the adapters: how much they can hold")
    two.text_input(
        "Layers", key=key("layers"), max_chars=80, placeholder="all", disabled=going_on, help="Such as 0-5 13"
    )
    three.number_input("Seed", 0, 2**31 - 1, key=key("seed"), help="The same seed gives the same weights.")


def words(engine: Engine, rows: Rows) -> None:
    """How often each row is seen, and how long it takes."""
    try:
        asked = plan()
    except ExplorerError as error:
        state.show_error(error)
        return
    seen = asked.steps * asked.batch / len(rows)
    often = f"{asked.steps:,} steps see each row {seen:.1f} times"
    time = trained.estimate(engine, rows, asked)
    if time is None:
        long = "how long it takes is known once the model is loaded"
    elif time[1]:
        long = f"about {trained.spelled(time[0])}, as the last training went"
    else:
        long = f"roughly {trained.spelled(time[0])} on two free cores, judged by the model’s size; the first steps will say better"
    st.html(f'<p class="say num">{often}; {long}. Live answers go first.</p>')
