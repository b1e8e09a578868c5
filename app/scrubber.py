"""A series of a lab, one point at a time: rates, one answer, and curves of the rate and of features."""

from html import escape

import streamlit as st

from app import charts, compared, lab_charts, standings, state
from app.compare_link import AT, SERIES, asked, chose, key
from app.compared import Lab, Line
from app.facts import bare, markdown_text, masked, veiled
from app.feature_row import named
from explorer.cache import Cache
from explorer.errors import ExplorerError
from explorer.judging import judges

S = st.session_state
LINES = 3
"""Features drawn along a series at once."""


def judge_word(name: str) -> str:
    """What the judge looks for, as people call it."""
    try:
        judge = judges().get(name)
    except ExplorerError:
        judge = None
    return (judge.label if judge else name).lower()


def scrubbing(cache: Cache, lab: Lab, defaults: list[int], labels: dict[int, str]) -> None:
    """Models in an order that means something, one point at a time."""
    st.html('<h2 class="part-head">How it came about</h2>')
    line = lab.lines[asked(SERIES, lab.lines, lab.hosts.get(st.query_params.get(SERIES, ""), ""))]
    spots = {f"{point.x:g}": point for point in line.points}
    order = list(spots)
    at = st.query_params.get(AT)
    at = at if at in spots else order[-1]
    S[key(AT)] = at
    point, word = spots[at], judge_word(lab.judge)
    if len(lab.lines) > 1:
        st.segmented_control(
            "Series", list(lab.lines), key=key(SERIES), format_func=lambda name: markdown_text(str(name), 60), required=True,
            on_change=chose, args=(SERIES,), kwargs={AT: None}, label_visibility="collapsed",
        )  # fmt: skip
    left, right = st.columns([1.75, 1], gap="large")
    with right, st.container(key=key("point"), gap="small"):
        if len(order) > 1:
            st.select_slider(
                f"Point of “{markdown_text(line.name, 60)}”", order, key=key(AT), on_change=chose, args=(AT,),
                format_func=lambda x: line.spelled(float(x)),
            )  # fmt: skip
        for one in (line, line.beside):
            there = next((p for p in one.points if p.x == point.x), None) if one else None
            if one and there:
                seeds, whose = len(there.models), f"{veiled(one.name)}: " if line.beside else ""
                st.html(
                    f'<p class="sec words">{whose}{escape(line.spelled(there.x))}, {seeds} seed{"s" * (seeds > 1)}</p>'
                    f"{standings.point(there.tally, compared.leaked(there), word)}"
                )
        sample(point)
    with left:
        activity, chosen = curves(cache, lab, line, defaults, labels)
        names = {f: named(cache, f, labels) for f in chosen}
        beside = f" Grey and dashed: the same for {veiled(line.beside.name)}." if line.beside else ""
        st.html(
            f'<p class="say words">Across: {escape(line.axis)}. Teal: the share of answers judged {escape(word)}, with 95 % intervals, and '
            "each seed as a pale dot. Orange: mean activation of the chosen features on the models’ own answers. The dotted line is "
            f"where the slider stands.{beside}</p>"
        )
        st.plotly_chart(
            lab_charts.series(line, point.x, activity, names, word), config=charts.CONFIG, key=key("curve"),
            alt=f"Share of answers judged {word} along {line.axis}" + (f", beside {bare(line.beside.name)}" if line.beside else ""),
        )  # fmt: skip
        styles = ("fire", "fire dash", "fire dots")
        words = "".join(f'<span class="{styles[n % 3]}">#{f} {veiled(names[f])}</span>' for n, f in enumerate(activity))
        if line.beside:
            words = f'<span class="dash">{veiled(line.beside.name)}</span>' + words
        st.html(
            f'<div class="keys say words"><span class="trait">{veiled(line.name) if line.beside else f"judged {escape(word)}"}</span>'
            f"{words}</div>"
        )


def curves(
    cache: Cache, lab: Lab, line: Line, defaults: list[int], labels: dict[int, str]
) -> tuple[dict[int, list[tuple[float, list[float]]]], list[int]]:
    """A choice of features, and their mean activations along the series."""
    if not lab.read:
        return {}, []
    tested = list(dict.fromkeys([*defaults, *S.get(key("lines"), [])]))
    chosen = st.multiselect(
        "Features drawn along", tested, default=defaults[:LINES], key=key("lines"), max_selections=LINES,
        format_func=lambda f: f"#{f} {masked(named(cache, f, labels))[:30]}", placeholder="Choose features",
    )  # fmt: skip
    try:
        found = {f: lab.activity(line, f) for f in chosen if f < cache.n_features}
    except ExplorerError as error:
        state.show_error(error)
        return {}, []
    return {f: there for f, there in found.items() if there}, chosen


def sample(point: compared.Point) -> None:
    """One answer of the first seed, to a question that can be chosen."""
    said = point.models[0].samples
    if not said:
        return
    if S.get(key("question")) not in said:
        S.pop(key("question"), None)
    question = st.selectbox("One answer of the first seed", list(said), key=key("question"))
    st.html(
        f'<section class="said act"><p class="words">{veiled(" ".join(said[question].split())) or "<i>nothing</i>"}</p></section>'
    )
