"""What does a feature do? It is zeroed in one of its examples, and the model's next tokens are compared; asked for, never by itself."""

import math
from html import escape
from typing import TYPE_CHECKING

import streamlit as st

from app import resources, state
from app.components.heatmap import token_heatmap, token_row
from app.engine import Engine
from app.facts import percent, veiled
from app.jobs import Job
from app.watched import busy, trouble, watched
from explorer.cache import Cache
from explorer.records import Example, Feature

if TYPE_CHECKING:
    from explorer.ablation import Ablation, Moved, Verdict

S = st.session_state
JOB, WHICH, WHERE = "ablation-job", "ablation-example", "ablation-where"
EVERYWHERE, HERE = "Everywhere", "At each token only"
_SAID = {
    "confirmed": "Confirmed: the promoted tokens are what zeroing takes away",
    "partly": "Partly confirmed: the promoted tokens lose more than most",
    "not borne out": "Not borne out here: the promoted tokens are not what zeroing takes away",
    "silent": "Nothing can be said of the promoted tokens: the feature changes nothing here",
}


def zeroed(engine: Engine, feature: Feature, example: Example) -> "Ablation":
    """Zero a feature in an example on the engine's model."""
    from explorer.ablation import ablate

    coder = engine.steering(()).coder
    assert coder is not None  # an engine has one
    return ablate(engine.model, coder, feature.index, example.tokens, [token for token, _ in feature.promoted])


def what_it_does(cache: Cache, feature: Feature) -> None:
    """Draw the section; nothing where the feature has no example."""
    examples = [] if feature.dead else cache.examples(feature.index)
    if not examples:
        return
    st.html(
        '<p class="sec">What does it do?</p><p class="say">The feature is taken out of one example, everything else of the residual '
        "stream stays; the model’s next tokens are then compared.</p>"
    )
    key = (cache.manifest.sae_fingerprint, feature.index)
    watched(lambda: _draw(cache, feature, examples, key), lambda: _job(key))


def _job(key: tuple[str, int]) -> Job | None:
    said = S.get(JOB)
    return said[1] if said and said[0] == key else None


def _begin(feature: Feature, examples: list[Example], key: tuple[str, int]) -> None:
    name = state.cache_name()
    assert name is not None  # the page has one
    engine = resources.engine(name)
    engine.start()
    chosen = examples[min(int(S.get(WHICH) or 1), len(examples)) - 1]
    if before := S.get(JOB):
        before[1].stop()
    S[JOB] = (key, engine.job(lambda job: zeroed(engine, feature, chosen)), chosen, engine)


def _draw(cache: Cache, feature: Feature, examples: list[Example], key: tuple[str, int]) -> None:
    job = _job(key)
    if int(S.get(WHICH) or 1) > len(examples):  # another feature, with fewer
        S[WHICH] = 1
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.number_input(
            "Example",
            1,
            len(examples),
            1,
            key=WHICH,
            width=130,
            help="By rank: the top examples first, then the intervals",
        )
        st.button("Zero it", key="ablation-go", on_click=_begin, args=(feature, examples, key))
    if job is None:
        return
    if busy(job):
        said = S[JOB][3].warming or "zeroing the feature"
        st.html(f'<p class="say" role="status">{escape(said[:1].upper() + said[1:])}…</p>')
        return
    if trouble(job):
        st.button("Try again", key="ablation-again", on_click=_begin, args=(feature, examples, key))
        return
    show(cache, job.result, S[JOB][2])


def show(cache: Cache, found: "Ablation", example: Example) -> None:
    """The loss in colour, what loses and gains, and whether the promoted tokens are true."""
    st.html(f'<div class="num words" role="status">{verdict(found)}</div>')
    where = st.segmented_control(
        "Where", [EVERYWHERE, HERE], default=EVERYWHERE, required=True, key=WHERE, label_visibility="collapsed",
        help="Everywhere: also what attention carries on from earlier tokens is missing. At each token only: the direct effect.",
    )  # fmt: skip
    changes = on_what_follows(found.direct_loss if where == HERE else found.loss)
    top = max((abs(change) for change in changes), default=0.0)
    row = token_row(
        cache.vocabulary, found.tokens, changes, [at > 0 for at in range(len(changes))], flagged=example.flagged,
        group="How much less the model expects each token without the feature",
    )  # fmt: skip
    token_heatmap(
        [row], vmax=top or 1.0, window=0, signed=True, what="loss, nats", blur=state.blurs(), key="ablation-heatmap"
    )
    st.html(
        '<p class="say">Orange: the token comes as more of a surprise without the feature, which helped to expect it. Blue: as less '
        "of one.</p>" + table(cache, found)
    )


def on_what_follows(changes: "tuple[float, ...]") -> list[float]:
    """Changes of the loss, moved from the token that predicts to the token that is predicted; unknown ones are 0."""
    known = [0.0 if math.isnan(change) else change for change in changes]
    return [0.0, *known[:-1]]


def verdict(found: "Ablation") -> str:
    """The judgement of the promoted tokens and its figures, as HTML."""
    judged: Verdict = found.verdict
    said = f"<b>{_SAID[judged.words]}.</b> "
    if judged.words != "silent":
        said += (
            f"{judged.overlap} of {judged.listed} are among the {judged.listed} tokens that fall most; on average they fall more than "
            f"{percent(judged.percentile)} of the vocabulary (rank correlation {judged.correlation:+.2f}). ".replace(
                "-", "−"
            )
        )
    loss = sum(found.loss) / max(1, len(found.loss) - 1)
    return said + f"It fires on {found.fires} tokens; the loss changes by {loss:+.3f} nats a token.".replace("-", "−")


def table(cache: Cache, found: "Ablation") -> str:
    """Tokens that lose and that gain, side by side, as HTML; on average over the tokens on which the feature fires."""
    if not found.lose and not found.gain:
        return ""
    rows = []
    for at in range(max(len(found.lose), len(found.gain))):
        sides = (side[at] if at < len(side) else None for side in (found.lose, found.gain))
        rows.append("<tr>" + "".join(_cells(cache, moved) for moved in sides) + "</tr>")
    head = "<th>{}</th><th>logit</th><th>probability</th>"
    return (
        '<table class="tokens num"><tr>' + head.format("Loses without it") + head.format("Gains without it")
        + f"</tr>{''.join(rows)}</table>"
    )  # fmt: skip


def _cells(cache: Cache, moved: "Moved | None") -> str:
    if moved is None:
        return "<td></td>" * 3
    change = f"{moved.logit:+.2f}".replace("-", "−")
    return (
        f"<td><code>{veiled(cache.vocabulary.piece(moved.token))}</code></td><td>{change}</td>"
        f"<td>{percent(moved.before)} → {percent(moved.after)}</td>"
    )
