"""Label: a queue of features, named one after another without the mouse."""

import time
from html import escape
from typing import Any

import streamlit as st

from app import label_form as form
from app import queues, resources, shared_queues, state
from app.agreement_view import disagreements
from app.components.browser import browser
from app.components.heatmap import example_rows, token_heatmap
from app.facts import logit_effects, number, percent, veiled
from app.quiz_form import test_my_label
from app.remarks_form import others, past, remarks
from explorer.cache import Cache
from explorer.errors import ExplorerError
from explorer.labels import CONFIDENCES, NOT_INTERPRETABLE, Label
from explorer.records import Example, Feature

PLACE = "label"
QUEUE, SIZE, SEED, AT, END = "queue", "size", "seed", "at", "end"
NAMES = {queues.DENSITY: "Density", queues.UNLABELLED: "Unlabelled", queues.RANDOM: "Random"}
TOP, INTERVALS = 8, (2, 2, 2, 1, 1)  # examples in view: the strongest; of each fifth of the range, from strong to weak
EFFECTS = 8
LETTERS = ("H", "O", "M")  # it still holds, the other's words, mine
NAMING, DIFFERING = "Name features", "Disagreements"


def _get(key: str) -> str:
    return st.query_params.get(key, "")


def _number(key: str, default: int) -> int:
    said = _get(key)
    return int(said) if said.isascii() and said.isdigit() and len(said) < 10 else default


def asked() -> tuple[str, int, int]:
    """Queue, size and seed as the link says; nonsense is the default."""
    name, size = _get(QUEUE), _number(SIZE, queues.SIZES[0])
    return (
        name
        if name in queues.QUEUES or name.startswith((shared_queues.SHARED, shared_queues.LIST))
        else queues.DENSITY,
        size if size in queues.SIZES else queues.SIZES[0],
        _number(SEED, 0),
    )


def choose(*, name: str | None = None, size: int | None = None, seed: int | None = None) -> None:
    """Start a queue; for callbacks. It is made afresh, and begins at its first feature without a label."""
    now = asked()
    said = {
        QUEUE: name or now[0],
        SIZE: now[1] if size is None else size,
        SEED: now[2] if seed is None else seed,
    }
    defaults = {QUEUE: queues.DENSITY, SIZE: queues.SIZES[0], SEED: 0}
    for key, value in said.items():
        if value == defaults[key]:
            st.query_params.pop(key, None)
        else:
            st.query_params[key] = str(value)
    for key in (AT, state.FEATURE):
        st.query_params.pop(key, None)
    for key in ("label-queue", "label-at"):
        st.session_state.pop(key, None)


def the_queue(cache: Cache, labelled: dict[int, Label]) -> queues.Queue:
    """The queue of the link; it stays as it was made for as long as this session looks at it."""
    name, size, seed = asked()
    key = (cache.manifest.sae_fingerprint, cache.manifest.created, name, size, seed)
    known = st.session_state.get("label-queue")
    if known is None or known[0] != key:
        if name in queues.QUEUES:
            made = queues.queue(name, cache.frame["density"].tolist(), labelled, size=size, seed=seed)
        else:
            made = shared_queues.made(cache, name)
        known = (key, made)
        st.session_state["label-queue"] = known
        st.session_state.pop("label-at", None)
    return known[1]


def in_view(cache: Cache, line: queues.Queue, labelled: dict[int, Label]) -> int | None:
    """The feature of the link, else the first one without a label; None at the end of the queue."""
    if _get(AT) == END:
        return None
    if state.FEATURE in st.query_params:
        return state.feature(cache)
    if "label-at" not in st.session_state:  # it must not move on by itself as soon as it has been saved
        name = asked()[0]
        shared = name.startswith(shared_queues.SHARED)
        st.session_state["label-at"] = line.first(shared_queues.dealt_with(cache, name) if shared else labelled)
    return st.session_state["label-at"]


def open_feature(feature: int | None, *, focus: bool = False) -> None:
    """Show another feature, or the end; for callbacks.

    Args:
        focus: Put the cursor into the label's box.
    """
    if feature is None:
        st.query_params[AT] = END
        st.query_params.pop(state.FEATURE, None)
    else:
        st.query_params.pop(AT, None)
        st.query_params[state.FEATURE] = str(feature)
    if focus:
        st.session_state["label-focus"] = st.session_state.get("label-focus", 0) + 1


def leave(keys: form.Keys, to: int | None, focus: bool = False) -> None:
    """Save what is in the boxes and go on; stay where it could not be saved, or where two people differ."""
    if not form.save(keys) or _differ(keys):
        return
    name = asked()[0]
    if name.startswith(shared_queues.SHARED) and (kind := "done" if _mine(keys) else "skipped" if focus else ""):
        try:
            shared_queues.mark(state.cache(), name, keys.feature, kind)
        except ExplorerError as error:
            st.session_state[keys.trouble] = error
            return
    for box in (keys.text, keys.note, keys.sure):
        # What `form.fill` put there would stay without the browser being told of it: coming back reads the store.
        st.session_state.pop(box, None)
    open_feature(to, focus=focus)


def _mine(keys: form.Keys) -> bool:
    """Whether the person who looks has said something of the feature, and not taken it back."""
    said = [change for change in past(keys.sae, keys.feature) if change.author == form.author()]
    return bool(said) and not said[-1].empty


def mark(keys: form.Keys, to: int | None) -> None:
    """Say that no one meaning was found, and go on."""
    form.fill(keys, NOT_INTERPRETABLE)
    leave(keys, to)


def undo(sae: str, here: int | None) -> None:
    """Take back what this session saved last, wherever that was, and show it; else the newest change in view."""
    done: list[tuple[str, int]] = st.session_state.setdefault(form.DONE, [])
    mine = [at for at, (of, _) in enumerate(done) if of == sae]
    feature = done[mine[-1]][1] if mine else here
    if feature is None:
        return
    if here is not None and not form.save(form.Keys(PLACE, sae, here)):
        return
    keys = form.Keys(PLACE, sae, feature)
    try:
        history = resources.labels().history(sae, feature)
    except ExplorerError as error:
        st.session_state[keys.trouble] = error
        history = []
    if history and history[-1].author != form.author():
        st.session_state["label-say"] = f"{history[-1].author} changed #{feature} after you: nothing was taken back."
    elif history:
        form.undo_change(keys)
    if mine and not st.session_state.get(keys.trouble):
        del done[mine[-1]]
    open_feature(feature)


def _differ(keys: form.Keys) -> bool:
    """Whether somebody else's words came in between and have not been in view yet."""
    theirs: Label | None = st.session_state.get(keys.theirs)
    if theirs is None:
        return False
    if time.monotonic() - form.seen_since(theirs) < 1:  # leaving the box and pressing the key arrive as two events
        return True
    st.session_state[keys.theirs] = None  # seen, and gone on: mine stays
    return False


def header(cache: Cache, line: queues.Queue, feature: int | None, labelled: dict[int, Label]) -> None:
    """Which queue, how far it is done, and when something was saved last."""
    name, size, seed = asked()
    known = shared_queues.named(cache)
    other = name if name in known else None
    st.session_state["label-queue-choice"] = name if name in NAMES else None
    st.session_state["label-size-choice"], st.session_state["label-shared-choice"] = size, other
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.segmented_control(
            "Queue",
            list(NAMES),
            format_func=NAMES.__getitem__,
            key="label-queue-choice",
            on_change=lambda: choose(name=st.session_state["label-queue-choice"] or name),
            label_visibility="collapsed",
        )
        if known:
            st.selectbox(
                "A shared queue or a list", list(known), format_func=known.__getitem__, key="label-shared-choice", width=190,
                placeholder="Shared queue or list", label_visibility="collapsed",
                on_change=lambda: choose(name=st.session_state["label-shared-choice"] or queues.DENSITY),
            )  # fmt: skip
        st.selectbox(
            "Length of the queue",
            queues.SIZES,
            format_func=lambda n: f"{n} features" if n else "all",
            key="label-size-choice",
            on_change=lambda: choose(size=st.session_state["label-size-choice"]),
            label_visibility="collapsed",
            width=130,
        )
        if name == queues.RANDOM:
            st.button("Shuffle", key="label-shuffle", on_click=choose, kwargs={"seed": seed + 1})
        st.html(f'<div class="num" role="status">{progress(cache, line, feature, labelled)}</div>', width="stretch")
        form.name_field()
    if name.startswith(shared_queues.SHARED):
        shared_queues.progress(cache, name)


def progress(cache: Cache, line: queues.Queue, feature: int | None, labelled: dict[int, Label]) -> str:
    """As "14 of 50 · 12 labelled · saved 10:02 by me · 2 labelling", in HTML."""
    place = None if feature is None else line.place(feature)
    where = f"<b>{place + 1:,}</b> of {len(line):,}" if place is not None else f"{len(line):,} in this queue"
    parts = [where, f"{sum(f in labelled for f in line.features):,} labelled"]
    sae = cache.manifest.sae_fingerprint
    try:
        if mine := [f for of, f in st.session_state.get(form.DONE, []) if of == sae]:
            newest = resources.labels().history(sae, mine[-1])[-1]
            parts.append(f"saved <b>{form.clock(newest.created_at)}</b> by {escape(newest.author)}")
        if len(people := resources.labels().recent_authors(sae)) > 1:
            parts.append(f"{len(people)} labelling")
    except (ExplorerError, IndexError):  # the form says what is wrong
        pass
    return f'<span class="dim words">{" · ".join(parts)}</span>'


def shown_examples(cache: Cache, feature: int) -> list[Example]:
    """The examples that a label is written from: the strongest, then some of each fifth of the range, from strong to weak."""
    found = cache.examples(feature)
    shown = [e for e in found if e.kind == "top"][:TOP]
    for interval, count in zip(range(4, -1, -1), INTERVALS, strict=True):
        shown += sorted([e for e in found if e.interval == interval][:count], key=lambda e: -e.value)
    return shown


def head(feature: Feature, shown: list[Example]) -> None:
    """Which feature it is."""
    title = f" <b>{veiled(feature.title)}</b>" if feature.title else ""
    st.html(f'<div class="head words"><h1>#{feature.index}{title}</h1></div>')
    if not shown:
        st.html('<p class="say">No window in this corpus activates this feature: there is nothing to go by.</p>')
        return
    st.html(
        f'<div class="facts num dim"><span>max <b>{number(feature.max)}</b></span>'
        f"<span>fires on <b>{percent(feature.density)}</b> of tokens</span>"
        f"<span>the strongest {min(TOP, len(shown))} examples, then samples from strong to weak</span></div>"
    )


def evidence(cache: Cache, feature: Feature, shown: list[Example]) -> None:
    """What it fires on."""
    token_heatmap(example_rows(cache, shown), vmax=feature.max, blur=state.blurs(), key="label-heatmap")


def effects(cache: Cache, feature: Feature) -> None:
    """Which next tokens it makes likelier and less likely."""
    if told := logit_effects(cache, feature, EFFECTS):
        st.html(f'<p class="sec">Promoted and suppressed next tokens (logit effect)</p>{told}')


def said_by(labels: list[Label]) -> None:
    """What other people called it."""
    lines = "".join(
        f'<div class="words"><b>{veiled(c.label) or "<i>no label</i>"}</b> <span class="dim num">{escape(c.author)} · '
        f"{form.clock(c.created_at)}{f' · {CONFIDENCES[c.confidence]}' if c.confidence else ''}</span></div>"
        for c in labels[:12]
    )
    st.html(f'<p class="sec">What others said</p>{lines}')


def steps(
    sae: str, line: queues.Queue, feature: int, labelled: dict[int, Label], history: list[Label], *, quiz: bool
) -> None:
    """The buttons, each with its key; a quiz takes N for itself."""
    keys, me = form.Keys(PLACE, sae, feature), form.author()
    taken: set[int] = set()
    if asked()[0] == queues.UNLABELLED:  # somebody else was faster
        taken = {f for f, label in labelled.items() if label.author != me}
    after, before = line.after(feature, taken), line.before(feature)
    mine = bool(history) and history[-1].author == me and not history[-1].empty
    undoable = mine or any(of == sae for of, _ in st.session_state.get(form.DONE, []))
    wide: dict[str, Any] = {"width": "stretch"}
    st.button(
        "Save and next",
        type="primary",
        shortcut="Mod+Enter",
        key="label-next",
        on_click=leave,
        args=(keys, after, True),
        **wide,
    )
    row = st.container(horizontal=True, gap="small")
    row.button(
        "Previous", shortcut="K", key="label-k", disabled=before is None, on_click=leave, args=(keys, before), **wide
    )
    row.button("Next", shortcut="J", key="label-j", on_click=leave, args=(keys, after), **wide)
    row = st.container(horizontal=True, gap="small")
    row.button(
        "Not interpretable", shortcut=None if quiz else "N", key="label-n", on_click=mark, args=(keys, after), **wide
    )
    row.button("Undo", shortcut="U", key="label-u", disabled=not undoable, on_click=undo, args=(sae, feature), **wide)
    st.html(
        '<p class="say"><kbd>Esc</kbd> leaves the box and saves; then the keys work: <kbd>1</kbd> '
        "<kbd>2</kbd> <kbd>3</kbd> say how sure you are, <kbd>E</kbd> goes back into the box.</p>"
    )


def opinions(sae: str, feature: int, theirs: list[Label], blind: bool) -> None:
    """What other people said; hidden until one has said something oneself, or asks."""
    if not theirs:
        return
    # Not in the link: whoever follows it should form an opinion of their own.
    reveal = f"label-reveal-{sae[:12]}-{feature}"
    if blind and not st.session_state.get(reveal):

        def show() -> None:
            st.session_state[reveal] = True

        count = "1 label" if len(theirs) == 1 else f"{len(theirs)} labels"
        st.button(
            f"Show {count} of other people",
            icon=":material/visibility:",
            key=f"{reveal}-button",
            on_click=show,
            type="tertiary",
            help="Shown by itself once you have saved yours.",
        )
    else:
        said_by(theirs)


def finished(cache: Cache, line: queues.Queue, labelled: dict[int, Label]) -> None:
    """The queue is done, or there was nothing in it: how many, and what next."""
    sae = cache.manifest.sae_fingerprint
    name, size, seed = asked()
    density = cache.frame["density"].tolist()
    live, left = (len(queues.queue(queues.UNLABELLED, density, known, size=0)) for known in ((), labelled))
    done = sum(f in labelled for f in line.features)
    if len(line):
        dealt = shared_queues.dealt_with(cache, name) if name.startswith(shared_queues.SHARED) else labelled
        title = "Queue done" if all(f in dealt for f in line.features) else "End of the queue"
        words = f"{done:,} of its {len(line):,} features {'is' if done == 1 else 'are'} labelled"
    elif name in queues.QUEUES:
        title, words = "Nothing left in this queue", "Every feature that fires has a label"
    else:
        title = "Nothing in this queue"
        words = "It holds no feature of this SAE for you, or it is not there any more: choose another one above"
    st.html(
        f'<div class="head" role="status"><h1>{title}</h1></div>'
        f'<div class="facts num"><span>{words}.</span><span class="dim">Of the {live:,} features of the cache that fire, '
        f"{live - left:,} {'has' if live - left == 1 else 'have'} a label.</span></div>"
    )
    with st.container(horizontal=True, gap="small"):
        if left:
            what = f"Go on with {min(left, size or left):,} unlabelled"
            st.button(what, type="primary", key="label-more", on_click=choose, kwargs={"name": queues.UNLABELLED})
        if missed := [f for f in line.features if f not in labelled]:
            st.button(f"Open the first of {len(missed):,} skipped", key="label-missed", on_click=open_feature,
                      args=(missed[0],), kwargs={"focus": True})  # fmt: skip
        next_seed = seed + 1 if name == queues.RANDOM else seed
        st.button(
            "A random queue",
            key="label-another",
            on_click=choose,
            kwargs={"name": queues.RANDOM, "seed": next_seed},
        )
        if len(line):
            last = line.features[-1]
            st.button("Previous", shortcut="K", key="label-k", on_click=open_feature, args=(last,))
            undoable = any(of == sae for of, _ in st.session_state.get(form.DONE, []))
            st.button("Undo", shortcut="U", key="label-u", disabled=not undoable, on_click=undo, args=(sae, None))
    st.html('<p class="say">To hand the labels on:</p>')
    st.code("persona-explorer labels export labels.csv", language=None)


def main() -> None:
    """Draw the page."""
    cache = state.cache()
    tab = st.segmented_control(
        "What",
        (NAMING, DIFFERING),
        default=NAMING,
        required=True,
        key="what",
        bind="query-params",
        label_visibility="collapsed",
    )
    if tab == DIFFERING:
        disagreements(cache)
        state.remember("label")
        return
    labelled = state.labels(cache)
    line = the_queue(cache, labelled)
    index = in_view(cache, line, labelled)
    header(cache, line, index, labelled)
    if say := st.session_state.pop("label-say", None):
        st.html(f'<div class="trouble words" role="alert">{escape(say)}</div>')
    if index is None:
        finished(cache, line, labelled)
    else:
        naming(cache, line, index, labelled)
    state.remember("label")


def naming(cache: Cache, line: queues.Queue, index: int, labelled: dict[int, Label]) -> None:
    """One feature: what it fires on, and what people say of it."""
    sae, feature, shown = cache.manifest.sae_fingerprint, cache.feature(index), shown_examples(cache, index)
    left, right = st.columns([2.4, 1], gap="medium")
    history, me = past(sae, index), form.author()
    mine = next((change for change in reversed(history) if change.author == me), None)
    theirs = others(history, me)
    blind = bool(theirs) and mine is None
    with left:
        head(feature, shown)
        quiz = test_my_label(cache, sae, index, mine if mine and not mine.empty else None, seen=[e.rank for e in shown])
        if shown and not quiz:  # a question stands where the examples stood: it is to be answered by the label alone
            evidence(cache, feature, shown)
    with right.container(key="label-side"):
        form.label_form(sae, index, place=PLACE, undo=False, blind=blind, rests=(cache, shown), letters=LETTERS)
        steps(sae, line, index, labelled, history, quiz=quiz)
        opinions(sae, index, theirs, blind)
        remarks(sae, index, [] if blind else theirs)
        effects(cache, feature)
    keys = form.Keys(PLACE, sae, index)
    browser(
        box=keys.text,
        choices=None if quiz else keys.sure,
        focus=st.session_state.setdefault("label-focus", 0),
        query={state.FEATURE: str(index)},
        key="label-browser",
    )


main()
