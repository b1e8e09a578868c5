"""Monitor: a log watched for persona features, a threshold that people confirm, and an audit of a training set."""

import math
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from app import audit_form, charts, monitored, resources, score_charts, state, watch_form
from app.engine import Engine
from app.facts import masked, number, veiled
from app.review import AT, review
from app.watch_form import JOB, UNIT, job_of, key, open_run, start_page, under_way
from app.watched import busy, watched
from explorer.cache import Cache
from explorer.errors import ExplorerError
from explorer.monitor import STATISTICS, Curve, Tuning, Watch, flags_csv, flags_jsonl, measured

if TYPE_CHECKING:
    import pandas as pd

S = st.session_state
TABLE = "monitor-table"
NAMES = {"mean": "Mean of its tokens", "largest": "Strongest token"}
ALL = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a run is looked at: the link holds it.

    Args:
        threshold: None where the link says none: one message in a hundred is flagged.
        role: Only messages of this party; all if "".
    """

    name: str
    probe: str
    statistic: str = "mean"
    threshold: float | None = None
    role: str = ALL


def asked(run: Watch, name: str) -> tuple[Choice, list[str]]:
    """What the link says; and what in it made no sense."""
    query, bad = st.query_params.to_dict(), []
    probe, statistic = query.get("feature", run.probes[0]), query.get("statistic", "mean")
    if probe not in run.probes:
        bad.append(f"feature {probe[:20]!r}")
        probe = run.probes[0]
    if statistic not in STATISTICS:
        bad.append(f"statistic {statistic[:20]!r}")
        statistic = "mean"
    threshold = None
    if said := query.get("threshold"):
        try:
            threshold = float(said)
        except ValueError:
            threshold = math.nan
        if not math.isfinite(threshold):
            bad.append(f"threshold {said[:20]!r}")
            threshold = None
    return Choice(name, probe, statistic, threshold, query.get("role", ALL)), bad


def keep(now: Choice) -> None:
    """Write the choice into the link, and begin its queue at its first message; for callbacks."""
    S.pop(AT, None)
    said = {"set": now.name, "feature": now.probe, "statistic": now.statistic, "role": now.role}
    if now.threshold is not None:
        said["threshold"] = f"{now.threshold:.6g}"
    usual = {"statistic": "mean", "role": ALL}
    others = {k: st.query_params.get_all(k) for k in st.query_params if k not in (*said, "threshold")}
    st.query_params.from_dict({**others, **{k: v for k, v in said.items() if v != usual.get(k)}})


def choose(now: Choice) -> None:
    """What the boxes say; another feature or statistic has a threshold of its own. For callbacks."""
    said = {name: S.get(key(f"on-{name}")) for name in ("probe", "statistic", "role")}
    new = replace(now, **{name: value for name, value in said.items() if value is not None})
    keep(replace(new, threshold=now.threshold if (new.probe, new.statistic) == (now.probe, now.statistic) else None))


def move(now: Choice, widget: str) -> None:
    """The threshold as a slider or a box says it; for callbacks."""
    keep(replace(now, threshold=S.get(widget)))


def scores_of(run: Watch, now: Choice) -> tuple["pd.DataFrame", list[str]]:
    """The scores in view, read once, and the parties of the log."""
    stamp = (str(run.folder), run.complete, run.messages, now.probe, now.statistic)
    known = S.get(TABLE)
    if known is None or known[0] != stamp:
        known = (stamp, run.scores(now.probe, now.statistic))
        S[TABLE] = known
    table = known[1]
    roles = [str(role) for role in table["role"].unique()]
    return (table.query("role == @now.role").reset_index(drop=True) if now.role else table), roles


# --- what is drawn


def head(run: Watch, now: Choice, table: "pd.DataFrame", threshold: float) -> None:
    """What the run is, the way back, and the flags to take away."""
    facts = run.facts
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.html(f'<h2 class="part-head words">{veiled(str(facts["log"]))}</h2>', width="stretch")
        st.button(
            "All runs", key=key("back"), on_click=open_run, args=("",), icon=":material/arrow_back:", type="tertiary"
        )
        export(run, now, threshold)
    unscored = int(np.isnan(table["score"].to_numpy(float)).sum())
    said = [
        f"<b>{len(table):,}</b> messages",
        f"<b>{len(set(table['transcript'])):,}</b> conversations",
        escape(str(facts["model"])),
    ]
    said += [f"{unscored:,} without a token that counts"] if unscored else []
    st.html(f'<div class="facts num dim words">{"".join(f"<span>{one}</span>" for one in said)}</div>')


def export(run: Watch, now: Choice, threshold: float) -> None:
    """The flagged messages as files, made when they are asked for."""

    def flags() -> "pd.DataFrame":
        return run.flagged(now.probe, threshold, now.statistic, roles=(now.role,) if now.role else ())

    st.download_button(
        "Export flags", lambda: flags_csv(flags()), "flags.csv", "text/csv", key=key("csv"), type="primary",
        icon=":material/download:", on_click="ignore", help="As CSV, safe to open in a spreadsheet",
    )  # fmt: skip
    st.download_button(
        "JSONL", lambda: flags_jsonl(flags()), "flags.jsonl", "application/jsonl", key=key("jsonl"),
        on_click="ignore",
    )  # fmt: skip


def controls(cache: Cache, run: Watch, now: Choice, roles: list[str], values: np.ndarray, threshold: float) -> None:
    """Which feature, statistic and party, and the threshold as a number."""
    labels = state.label_texts(cache)
    same_sae = run.facts["sae_fingerprint"] == cache.manifest.sae_fingerprint

    def title(probe: str) -> str:
        name = labels.get(int(probe), "") if same_sae and probe.isdecimal() else ""
        return f"#{probe} {masked(name)}".strip() if probe.isdecimal() else probe

    for name in ("probe", "statistic", "role"):
        if S.get(key(f"on-{name}")) != getattr(now, name):
            S[key(f"on-{name}")] = getattr(now, name)
    change = {"on_change": choose, "args": (now,)}
    options = list(dict.fromkeys([ALL, *roles, now.role]))
    low, high = bounds(values, threshold)
    if S.get(key("on-threshold")) != threshold:
        S[key("on-threshold")] = threshold
    first, second, third, last = st.columns([1.5, 1.5, 0.8, 0.8])
    first.selectbox("Feature", list(run.probes), key=key("on-probe"), format_func=title, **change)
    second.segmented_control(
        "Score of a message", list(NAMES), key=key("on-statistic"), format_func=lambda n: NAMES.get(n) or str(n), required=True, **change,
    )  # fmt: skip
    third.selectbox(
        "Said by", options, key=key("on-role"), format_func=lambda role: masked(role) or "everybody", **change
    )
    last.number_input(
        "Threshold", key=key("on-threshold"), step=monitored.step_of(low, high), format="%.4f", on_change=move, args=(now, key("on-threshold")),
        help=f"Messages at or above it are flagged. {UNIT}",
    )  # fmt: skip


def bounds(values: np.ndarray, threshold: float) -> tuple[float, float]:
    """Ends of the slider: all scores, and the threshold wherever it is."""
    low, high = monitored.reach(values)
    return min(low, threshold), max(high, threshold)


def threshold_control(now: Choice, values: np.ndarray, threshold: float) -> None:
    """The histogram, with the threshold as a slider under it."""
    low, high = bounds(values, threshold)
    st.html(
        '<p class="say">Each bar counts messages by their score, on a log scale; those from the teal line on, the threshold, '
        "are flagged and orange.</p>"
    )
    st.plotly_chart(
        score_charts.score_histogram(values, (low, high), threshold), config=charts.CONFIG, key=key("histogram"),
        alt=f"Histogram of the scores, with the threshold at {threshold:.3f}",
    )  # fmt: skip
    slider = key(f"on-slider-{now.probe}-{now.statistic}-{low}-{high}")
    if S.get(slider) != threshold:
        S[slider] = threshold
    with st.container(key=key("slider")):
        st.slider(
            "Flag messages that score at least", low, high, key=slider, step=monitored.step_of(low, high), format="%.4f", on_change=move,
            args=(now, slider),
        )  # fmt: skip


def figures(tuning: Tuning, found: Curve | None, *, told: bool) -> str:
    """What the threshold does, as HTML.

    Args:
        told: Whether the log itself says what its messages are.
    """
    drawn = "that the log judges" if told else "drawn blindly"
    rows = [("flags per 1,000 messages", number(tuning.per_thousand), f"{tuning.flagged:,} of {tuning.messages:,}")]
    if tuning.precision:
        rows.append(
            ("precision", *_share(tuning.precision, f"{sum(tuning.flags):,} of {tuning.flagged:,} flags, {drawn}"))
        )
    else:
        few = min(monitored.WANTED, tuning.flagged)
        rows.append(("precision", "unknown", f"confirm {few} drawn blindly" if few else "nothing is flagged"))
    kind = tuning.confirmed[0] + tuning.confirmed[2]
    missing = f"none of the kind among {tuning.judged:,} {drawn}" if tuning.judged else "review the random sample"
    if tuning.recall:
        rows.append(("recall", *_share(tuning.recall, f"{kind:,} of the kind among {tuning.judged:,} {drawn}")))
    else:
        rows.append(("recall", "unknown", missing))
    if found:
        rows.append(("AUROC", *_share(found.auroc, f"{found.n[0]:,} of the kind, {found.n[1]:,} others {drawn}")))
    else:
        rows.append(("AUROC", "unknown", f"all {kind:,} {drawn} are of the kind" if kind else missing))
    cells = "".join(
        f'<tr><th>{name}</th><td class="{"dim" if value == "unknown" else ""}"><b>{value}</b></td><td class="dim">{said}</td></tr>'
        for name, value, said in rows
    )
    return f'<table class="figures num tuning">{cells}</table>'


def _share(value: tuple[float, float, float], said: str) -> tuple[str, str]:
    return f"{value[0]:.2f}", f"{value[1]:.2f} to {value[2]:.2f}; {said}"


def curves(found: Curve, threshold: float) -> None:
    """ROC and PR side by side."""
    value, low, high = found.auroc
    for place, name, figure in zip(
        st.columns(2), ("ROC", "PR"), (score_charts.roc(found, threshold), score_charts.precision_recall(found, threshold)), strict=True
    ):  # fmt: skip
        place.html(f'<p class="sec">{name}</p>')
        place.plotly_chart(
            figure,
            config=charts.CONFIG,
            key=key(name.lower()),
            alt=f"{name} curve; AUROC {value:.2f} ({low:.2f} to {high:.2f})",
        )
    st.html(
        '<p class="say">A line goes through all thresholds: what is found against false alarms (ROC), and how much of what is '
        "flagged is right (PR). The point is the threshold in view, the dashes are guessing; intervals are 95 %.</p>"
    )


def result(cache: Cache, engine: Engine, run: Watch, name: str) -> None:
    """Everything about a run."""
    now, bad = asked(run, name)
    table, roles = scores_of(run, now)
    values = table["score"].to_numpy(float)
    threshold = monitored.threshold_of(values) if now.threshold is None else now.threshold
    head(run, now, table, threshold)
    if bad:
        st.html(
            f'<div class="trouble words" role="status">Not everything here made sense and was left out: {escape("; ".join(bad))}.</div>'
        )
    if not run.complete:
        cut_off(engine, run, name)
    if not len(table):
        none = f"No message of this log is by {masked(now.role)}." if now.role else "No message is scored yet."
        st.html(f'<p class="say" role="status">{escape(none)}</p>')
    controls(cache, run, now, roles, values, threshold)
    if not len(table):
        return
    tuning, found = measured(table, run.judged(table), threshold)
    left, right = st.columns([1.25, 1], gap="large")
    with left, st.container(key=key("tune")):
        threshold_control(now, values, threshold)
    with right:
        st.html(figures(tuning, found, told=bool(table["truth"].notna().any())))
        if found:
            curves(found, threshold)
    st.html('<hr class="part">')
    review(cache, engine, run, table, now.probe, threshold)


def cut_off(engine: Engine, run: Watch, name: str) -> None:
    """The run does not reach the end of the log: say so, and go on where that is possible."""
    log = monitored.can_go_on(run)

    def more() -> None:
        S[JOB] = (name, monitored.go_on(engine, name, run, log))  # type: ignore[arg-type]

    def draw() -> None:
        job = job_of(name)
        if job is not None:
            under_way(engine, job)
        if busy(job):
            return
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            way = "" if log else " To go on, run it again with the same log."
            st.html(
                f'<p class="say" role="status">This run was cut off; what was finished is below.{way}</p>',
                width="content",
            )
            if log:
                st.button("Go on", key=key("more"), on_click=more, icon=":material/play_arrow:")

    watched(draw, lambda: job_of(name))


def watch_tab(cache: Cache, engine: Engine) -> None:
    """A run, or the way to one."""
    name = st.query_params.get("set", "")
    if not name:
        start_page(cache, engine)
        return
    try:
        result(cache, engine, Watch(monitored.folder_of(name)), name)
    except ExplorerError as error:
        state.show_error(error)
        st.button("All runs", key=key("back-from-error"), on_click=open_run, args=("",))


def main() -> None:
    """Draw the page."""
    cache = state.cache()
    engine = resources.engine(state.cache_name() or "")
    state.remember("monitor")
    st.html(
        '<div class="head"><h1>Monitor</h1></div><p class="say">Where in a log, or in a training set, do persona features speak? '
        f"A flag is a reason to read, not a verdict. {watch_form.UNIT}</p>"
    )
    watching, auditing = st.tabs(["Watch a log", "Audit a training set"])
    with watching:
        watch_tab(cache, engine)
    with auditing:
        audit_form.audit_page(cache, engine)


main()
