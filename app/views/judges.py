"""Judges: what reads the answers, how often each errs, and how to teach one a new trait."""

import math
from collections.abc import Sequence
from html import escape

import streamlit as st

from app import resources, state
from app.engine import Engine
from app.facts import number, veiled
from app.jobs import Job
from app.teaching import teach
from app.watched import busy, progress, trouble, watched
from explorer.errors import ExplorerError
from explorer.judging import COHERENT_RULE, JUDGES, Judge, judges
from explorer.traits import Trait, TraitJudge, remove_trait, traits, unreadable

S = st.session_state
FITS, FITTING, SCORES, TEXT = "judges-fits", "judges-fitting", "judges-scores", "judges-text"
LONGEST = 4000


# --- background work


def measure(engine: Engine, some: Sequence[Trait]) -> None:
    """Fit these traits, or find the fits made before, and keep their figures."""

    def work(job: Job) -> dict[str, TraitJudge]:
        found = {}
        for at, trait in enumerate(some):
            if job.should_stop():
                break
            found[trait.name] = engine.panel().judge_of(trait)
            job.progress = (at + 1) / len(some)
        return found

    S[FITTING] = engine.job(work)


def fits() -> dict[str, TraitJudge]:
    """Trait -> judge, of those that have been measured in this session."""
    kept: dict[str, TraitJudge] = S.setdefault(FITS, {})
    if (job := S.get(FITTING)) is not None and not busy(job) and job.result:
        kept.update(job.result)
    return kept


def judge_text(engine: Engine) -> None:
    """Have every judge that costs nothing read the text in the box."""
    text = S.get(TEXT, "").strip()

    def work(job: Job) -> dict[str, float | ExplorerError]:
        found: dict[str, float | ExplorerError] = {}
        for judge in judges().values():
            if judge.needs == "endpoint" or job.should_stop():
                continue
            try:
                found[judge.name] = engine.panel().score([judge.name], [text], [""])[judge.name][0]
            except ExplorerError as error:  # the others may well be there
                found[judge.name] = error
        return found

    S[SCORES] = (text, engine.job(work)) if text else None


def forget(name: str) -> None:
    """Remove a trait that somebody taught."""
    try:
        remove_trait(name)
    except ExplorerError as error:
        S["judges-error"] = error
    S.get(FITS, {}).pop(name, None)


# --- what is drawn


def figures(engine: Engine) -> None:
    """Each trait with how often its judge errs on sentences that it was not fitted on."""
    try:
        known, broken = traits(), unreadable()  # here: one may be removed while only this part is drawn anew
    except ExplorerError as error:
        state.show_error(error)
        known, broken = {}, {}
    measured = fits()
    left = [trait for trait in known.values() if trait.name not in measured or measured[trait.name].trait != trait]
    st.html(
        '<p class="sec">Traits</p><p class="say">A judge of a trait gives the probability that a text shows it; above .5 it '
        "says yes. AUROC: how often it puts a sentence that shows the trait above one that does not (.5 is guessing, 1 is never "
        "wrong). Every figure is of sentences that it was not fitted on.</p>"
    )
    st.html(trait_table(known, measured))
    job = S.get(FITTING)
    with st.container(key="judges-measure"):
        if job is not None and busy(job):
            progress(job, engine.warming or "fitting and holding out", key="judges-cancel")
        elif left:
            st.button(
                f"Measure {len(left)} judge{'s' if len(left) > 1 else ''}", key="judges-go", on_click=measure, args=(engine, left),
                help="Fits them on their sentences, or takes the fit made before",
            )  # fmt: skip
        if job is not None and not busy(job):
            trouble(job)
    for error in broken.values():
        state.show_error(error)
    for name in (*(trait.name for trait in known.values() if not trait.bundled), *broken):
        st.button(
            f"Remove “{name}”",
            key=f"judges-forget-{name}",
            type="tertiary",
            icon=":material/delete:",
            on_click=forget,
            args=(name,),
        )


def trait_table(known: dict[str, Trait], measured: dict[str, TraitJudge]) -> str:
    """Traits with their sentences and held-out figures, as HTML."""
    head = (
        "<tr><th>Trait</th><th>Sentences: with, without</th><th>AUROC, held out</th>"
        "<th>Shows it: said yes, no</th><th>Does not: said yes, no</th></tr>"
    )
    rows = [_trait_row(trait, measured.get(trait.name)) for trait in known.values()]
    return f'<div class="scroll"><table class="figures num">{head}{"".join(rows)}</table></div>'


def _trait_row(trait: Trait, judge: TraitJudge | None) -> str:
    own = "" if trait.bundled else ' <span class="tag plain">own</span>'
    name = (
        f"<td><b>{veiled(trait.title)}</b>{own}"
        f'<p class="say words">{veiled(trait.question)}</p></td><td>{len(trait.positive):,}, {len(trait.negative):,}</td>'
    )
    if judge is None or judge.trait != trait:
        return f'<tr>{name}<td class="dim" colspan="3">not measured yet</td></tr>'
    right_no, wrong_yes, wrong_no, right_yes = judge.confusion
    fit = judge.fitted
    return (
        f'<tr>{name}<td><b>{fit.auroc:.3f}</b><p class="say">{fit.auroc_low:.3f} to {fit.auroc_high:.3f}</p></td>'
        f"<td><b>{right_yes:,}</b>, {wrong_no:,}</td><td>{wrong_yes:,}, <b>{right_no:,}</b></td></tr>"
    )


def others(some: Sequence[Judge]) -> None:
    """The judges that are not taught by sentences, each with what it means."""
    rows = "".join(
        f'<tr><td><b>{escape(judge.label)}</b></td><td>{escape(judge.unit)}</td><td class="words">{escape(judge.help)}</td></tr>'
        for judge in some
    )
    st.html(
        f'<p class="sec">Measures</p><table class="figures">{rows}</table>'
        f'<p class="say words"><b>Is this text broken?</b> {escape(COHERENT_RULE)}</p>'
    )


def try_a_text(engine: Engine) -> None:
    """A box for any text, and what every judge says of it."""
    st.text_area("Try a text", key=TEXT, height=110, max_chars=LONGEST, placeholder="Any sentence or answer")
    st.button("Judge this text", key="judges-try", on_click=judge_text, args=(engine,))
    said = S.get(SCORES)
    if said is None:
        st.html('<p class="say">Here comes what every judge says of it.</p>')
        return
    with st.container(height=330, border=False, key="judges-said"):  # another text's verdicts come in the same place
        if busy(said[1]):
            st.html('<p class="say" role="status">Reading it; the first time the judges are fitted.</p>')
        elif not trouble(said[1]):
            st.html(verdicts(said[1].result))


def verdicts(scores: dict[str, float | ExplorerError]) -> str:
    """What every judge says of one text, or why it cannot, as HTML."""
    known = judges()
    rows = "".join(_verdict(known[name], said) for name, said in scores.items() if name in known)
    return f'<table class="figures">{rows}</table>'


def _verdict(judge: Judge, said: float | ExplorerError) -> str:
    name = f"<td>{veiled(judge.label)}</td>"
    if isinstance(said, ExplorerError):
        return f'<tr>{name}<td colspan="2" class="dim words">{veiled(f"{said.found}. {said.do}")}</td></tr>'
    yes = judge.shows(said)
    verdict = "" if judge.threshold is None else "yes" if yes else "no"
    value = (
        "nothing to judge"
        if math.isnan(said)
        else f'<b>{number(said)}</b> <span class="dim">{escape(judge.unit)}</span>'
    )
    return f'<tr class="{"yes" if yes else ""}">{name}<td class="num">{value}</td><td>{verdict}</td></tr>'


def main() -> None:
    """Draw the page."""
    state.cache()
    engine = resources.engine(state.cache_name() or "")
    state.remember("judges")
    st.html(
        '<div class="head"><h1>Judges</h1></div><p class="say">What reads the answers and says how malicious, joyful or broken '
        "they are. A judge is a guess with figures beside it; read the answers too.</p>"
    )
    if error := S.pop("judges-error", None):
        state.show_error(error)
    left, right = st.columns([1.7, 1], gap="large")
    with left:
        watched(lambda: figures(engine), lambda: S.get(FITTING))
        teach(lambda trait: measure(engine, [trait]))
    with right:
        watched(lambda: try_a_text(engine), lambda: (S.get(SCORES) or (None, None))[1])
        others(list(JUDGES.values()))


main()
