"""Make a direction: two sets of texts in, a vector of the residual stream out, with what it tells apart and which features are near."""

import csv
import io
from collections.abc import Mapping
from html import escape

import streamlit as st

from app import state
from app.desk import add, key
from app.engine import Engine
from app.facts import markdown_text, veiled
from app.jobs import Job
from app.watched import busy, progress, trouble, watched
from explorer import directions
from explorer.cache import Cache
from explorer.directions import Direction
from explorer.errors import ExplorerError, SteeringError

S = st.session_state
JOB = "direction-job"
NEAREST = 6
WHAT = (
    "A direction is the difference between what the model thinks, on average, of texts with a trait and of texts without. "
    "Thirty or more of each kind, of the same length and topics, make one that holds."
)


def make_a_direction(cache: Cache, engine: Engine, known: Mapping[str, Direction], labels: dict[int, str]) -> None:
    """What came of it last, the form, and the directions of one's own."""
    watched(lambda: _draw(labels), lambda: S.get(JOB))
    st.html(f'<p class="say words">{WHAT}</p>')
    with_, without = st.columns(2, gap="small")
    with_.text_area("With the trait, one text a line", key=key("dir-with"), height=110)
    without.text_area("Without it, one text a line", key=key("dir-without"), height=110)
    st.file_uploader(
        "Or a CSV with the columns text and label (1 with the trait, 0 without)",
        "csv",
        key=key("dir-csv"),
        max_upload_size=5,
    )
    name, layer, go = st.columns([3, 1.4, 1.6], vertical_alignment="bottom", gap="small")
    name.text_input("Name", key=key("dir-name"), max_chars=40, placeholder="small letters, digits, hyphens")
    at = int(cache.manifest.hook_point.split(".")[1]) if cache.manifest.hook_point.startswith("blocks.") else 0
    layer.number_input(
        "Layer",
        0,
        999,
        at,
        key=key("dir-layer"),
        help=f"The SAE reads layer {at}: only there can it be compared with features.",
    )
    go.button("Make it", key=key("dir-go"), on_click=_ask, args=(cache, engine), width="stretch")
    mine = set(known) - directions.bundled(cache)
    if mine:
        st.html('<p class="sec">Your directions</p>')
    for own in sorted(mine):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.html(about(known[own], labels), width="stretch")
            st.button(
                "Remove", key=key("dir-forget", own), type="tertiary", icon=":material/delete:", help=f"Forget {own}",
                on_click=_forget, args=(cache, own),
            )  # fmt: skip


def texts_of(with_: str, without: str, table: bytes | None) -> tuple[list[str], list[str]]:
    """The texts of both boxes, a line each, and those of a CSV.

    Raises:
        SteeringError: If the CSV is none of ours.
    """
    sides = [[line.strip() for line in box.splitlines() if line.strip()] for box in (with_, without)]
    if table:
        try:
            rows = list(csv.DictReader(io.StringIO(table.decode("utf-8-sig"))))
            for row in rows:
                sides[{"1": 0, "0": 1}[row["label"].strip()]].append(row["text"].strip())
        except (ValueError, KeyError, AttributeError, csv.Error) as error:
            raise SteeringError(
                f"The CSV cannot be read ({error})",
                expected="the columns text and label, with 1 or 0",
                do="Mend the file",
            ) from error
    return sides[0], sides[1]


def _ask(cache: Cache, engine: Engine) -> None:
    table = S.get(key("dir-csv"))
    boxes = S.get(key("dir-with")) or "", S.get(key("dir-without")) or ""
    named = (S.get(key("dir-name")) or "").strip()
    layer = int(S.get(key("dir-layer")) or 0)

    def work(job: Job) -> Direction:
        positive, negative = texts_of(*boxes, table.getvalue() if table else None)
        made = engine.make_direction(positive, negative, f"blocks.{layer}.hook_resid_post", name=named, nearest=NEAREST)
        return directions.save(cache, made)

    S[JOB] = engine.job(work)


def _forget(cache: Cache, name: str) -> None:
    try:
        directions.remove(cache, name)
    except ExplorerError as error:
        state.show_error(error)


def _draw(labels: dict[int, str]) -> None:
    job: Job | None = S.get(JOB)
    if job is None:
        return
    if busy(job):
        progress(job, "reading the texts", key=key("dir-cancel"))
    elif not trouble(job):
        made: Direction = job.result
        st.html(about(made, labels))
        name = f"~{made.name}"
        if st.button(f"Steer with {markdown_text(name)}", key=key("dir-add"), on_click=add, args=(name,)):
            st.rerun()  # the whole page: a button in a fragment draws only its fragment anew


def about(direction: Direction, labels: dict[int, str]) -> str:
    """What is known of a direction, as HTML: separation in words, and the features that point nearly the same way."""
    facts = direction.facts
    auroc = facts.get("auroc")
    tells = (
        "too few texts to say what it tells apart"
        if auroc is None
        else f"tells apart texts it was not made of: AUROC <b>{auroc:.2f}</b> (1 always, 0.5 by chance)"
    )
    near = ", ".join(
        f'<a class="go" href="{escape(state.link("feature", feature=i))}" target="_self">#{i}</a> '
        f"{veiled(labels.get(i, ''))} <span class='num'>{cosine:+.2f}</span>"
        for i, cosine in facts.get("nearest", [])
    )
    return (
        f'<p class="say words"><b>~{escape(direction.name)}</b> <span class="tag direction">direction</span> '
        f"{facts.get('n_positive', '?')} texts with, {facts.get('n_negative', '?')} without, {escape(direction.hook_point)}; {tells}."
        f"{f' Nearest features by cosine: {near}.' if near else ''}</p>"
    )
