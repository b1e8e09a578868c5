"""How much, compared with what: answers at many strengths in one batch, judged; and controls of the same size."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from explorer.directions import Direction, random_direction
from explorer.intervals import wilson
from explorer.judging import Panel, coherent, judges
from explorer.records import Edit, Sampling
from explorer.repetition import first_loop
from explorer.steering import mode

if TYPE_CHECKING:
    from explorer.generate import Steering
    from explorer.model import LanguageModel

ROW_LIMIT = 200
"""Rows of a batch: beyond it the memory of a laptop is short and nothing is gained."""
FLUENCY = "fluency"
_PAIRED = frozenset({"ablate", "scale"})  # modes whose strength is no length along the direction

Prompt = str | Sequence[Mapping[str, str]]
"""A question, or a conversation of `{"role", "content"}` that ends with one."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Ask:
    """One answer that is wanted.

    Args:
        strength: What the edits were scaled to, for people; nan where they were not.
    """

    edits: tuple[Edit, ...]
    prompt: Prompt
    seed: int = 0
    strength: float = math.nan

    @property
    def question(self) -> str:
        """What is asked last, for judges and people."""
        return self.prompt if isinstance(self.prompt, str) else str(self.prompt[-1].get("content", ""))


@dataclass(frozen=True, slots=True)
class Cell:
    """One answer with what judges say of it.

    Args:
        strength: What the edits were scaled to.
        edits: As they were applied.
        text: Up to where it begins to repeat itself.
        looped: Whether it was cut there.
        scores: Judge -> its number.
    """

    strength: float
    edits: tuple[Edit, ...]
    prompt: str
    seed: int
    text: str
    looped: bool
    scores: dict[str, float]

    @property
    def coherent(self) -> bool:
        """Whether the answer is whole (see `explorer.judging.COHERENT_RULE`)."""
        return coherent(self.scores.get(FLUENCY, math.nan), self.looped)


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of answers, with what it was counted from."""

    successes: int
    n: int

    @property
    def value(self) -> float:
        return self.successes / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, Wilson's."""
        return wilson(self.successes, self.n)


@dataclass(frozen=True, slots=True)
class DosePoint:
    """All answers at one strength.

    Args:
        means: Judge -> mean over the answers that it could judge; nan where none.
        coherent: Share of coherent answers.
        rates: Judge with a threshold -> share of all answers above it.
    """

    strength: float
    n: int
    means: dict[str, float]
    coherent: float
    rates: dict[str, Rate]


@dataclass(frozen=True, slots=True, eq=False)
class Control:
    """Something else of the same size.

    Args:
        edits: What to steer with instead.
        directions: Directions that the edits name, to be added to those of the `Steering`.
    """

    name: str
    edits: tuple[Edit, ...]
    kind: Literal["random", "flipped", "feature"]
    directions: dict[str, Direction] = field(default_factory=dict)


def scaled(edits: Sequence[Edit], strength: float, only: str = "") -> tuple[Edit, ...]:
    """The strongest edit set to `strength`, the others in proportion; modes without a strength stay as they are.

    Args:
        only: Target of the one edit that is set; the others stay as they are.
    """
    if only:
        return tuple(replace(e, strength=strength) if e.target == only else e for e in edits)
    strongest = max((e.strength for e in edits if mode(e.mode).uses_strength), key=abs, default=0.0)

    def move(edit: Edit) -> Edit:
        if not mode(edit.mode).uses_strength:
            return edit
        return replace(edit, strength=edit.strength / strongest * strength + 0.0 if strongest else strength)

    return tuple(map(move, edits))


def flipped(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """The same edits to the other side of where they change nothing."""
    return tuple(replace(e, strength=2 * (mode(e.mode).neutral or 0.0) - e.strength) for e in edits)


def written(
    model: "LanguageModel",
    steering: "Steering | None",
    asked: Sequence[Ask],
    *,
    sampling: Sampling,
    progress: Progress = lambda *_: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[tuple[str, bool]]:
    """Answers in batches of at most `ROW_LIMIT`, each cut where it loops, and whether it did.

    Args:
        should_stop: Asked before every token; it may wait, to let others go first. What is unfinished then is left out.
    """
    texts: list[tuple[str, bool]] = []
    for start in range(0, len(asked), ROW_LIMIT):
        batch = asked[start : start + ROW_LIMIT]

        def told(step: int, start: int = start, n: int = len(batch)) -> None:
            progress("answering", start * sampling.max_tokens + n * step, len(asked) * sampling.max_tokens)

        done = _decoded(model, steering, batch, sampling, told, should_stop)
        if done is None:
            break
        texts += done
    return texts


def judged(asked: Sequence[Ask], texts: Sequence[tuple[str, bool]], panel: Panel, judges: Sequence[str]) -> list[Cell]:
    """What judges say of answers, one cell each; the fluency judge is always asked.

    Args:
        judges: Keys of `explorer.judging.judges()`.
    """
    names = list(dict.fromkeys([*judges, FLUENCY]))
    scores = panel.score(names, [text for text, _ in texts], [ask.question for ask in asked])
    return [
        Cell(a.strength, a.edits, a.question, a.seed, text, looped, {name: scores[name][at] for name in names})
        for at, (a, (text, looped)) in enumerate(zip(asked, texts, strict=True))
    ]


def answered(
    model: "LanguageModel",
    steering: "Steering | None",
    asked: Sequence[Ask],
    *,
    sampling: Sampling,
    panel: Panel,
    judges: Sequence[str],
    progress: Progress = lambda *_: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Cell]:
    """Answers, written and judged; arguments as for `written` and `judged`.

    Returns:
        One cell an answer, in the order of `asked`.
    """
    texts = written(model, steering, asked, sampling=sampling, progress=progress, should_stop=should_stop)
    progress("judging", 0, len(texts))
    return judged(asked[: len(texts)], texts, panel, judges)


def grid(
    model: "LanguageModel",
    steering: "Steering",
    pushes: Sequence[Sequence[Edit]],
    strengths: Sequence[float],
    prompts: Sequence[Prompt],
    *,
    only: str = "",
    seeds: Sequence[int] = (0,),
    sampling: Sampling,
    panel: Panel,
    judges: Sequence[str],
    progress: Progress = lambda *_: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Cell]:
    """Strengths x questions with one push (a dose strip), features x strengths with several; arguments as for `answered`.

    Args:
        pushes: Sets of edits, each of which is scaled to every strength.
        only: Target of the one edit that is scaled (see `scaled`).
    """
    asked = [
        Ask(scaled(push, strength, only), prompt, seed, strength)
        for push in pushes
        for strength in strengths
        for prompt in prompts
        for seed in seeds
    ]
    return answered(
        model, steering, asked, sampling=sampling, panel=panel, judges=judges, progress=progress,
        should_stop=should_stop,
    )  # fmt: skip


def points(cells: Iterable[Cell]) -> list[DosePoint]:
    """Cells summed up by strength, weakest first."""
    by: dict[float, list[Cell]] = {}
    for cell in cells:
        by.setdefault(cell.strength, []).append(cell)
    known = {name: judge.threshold for name, judge in judges().items()}
    return [_point(strength, by[strength], known) for strength in sorted(by)]


def zone(points: Sequence[DosePoint], share: float = 0.8) -> tuple[float, float] | None:
    """The strengths around 0 at which answers stay coherent, without a gap.

    Args:
        share: Of the answers at a strength that must be coherent.
    Returns:
        Lowest and highest; None where already the strength nearest to 0 is too much.
    """
    ordered = sorted(points, key=lambda point: point.strength)
    whole = [point.coherent >= share for point in ordered]
    if not ordered:
        return None
    low = high = min(range(len(ordered)), key=lambda at: abs(ordered[at].strength))
    if not whole[low]:
        return None
    while low > 0 and whole[low - 1]:
        low -= 1
    while high + 1 < len(ordered) and whole[high + 1]:
        high += 1
    return ordered[low].strength, ordered[high].strength


def rate(cells: Sequence[Cell], judge: str, threshold: float | None = 0.5) -> Rate:
    """The share of answers that a judge puts above its threshold."""
    return Rate(sum(c.scores[judge] > (threshold or 0.0) for c in cells), len(cells))


def whole(cells: Sequence[Cell]) -> Rate:
    """The share of coherent answers."""
    return Rate(sum(c.coherent for c in cells), len(cells))


def controls(edits: Sequence[Edit], steering: "Steering", *, n: int = 3, seed: int = 0) -> list[Control]:
    """What the edits are compared with: `n` random directions, the other sign, and another feature.

    Random directions have, at each hook point, the length of the vector that the edits add there together; modes that add nothing by
    themselves (ablate, scale) are applied to random directions as they are to the edits'. The other feature is pushed as far, too.
    """
    found = [_random(edits, steering, seed + at, f"random-{at + 1}") for at in range(n)]
    if any(mode(e.mode).uses_strength for e in edits):
        found.append(Control("flipped", flipped(edits), "flipped"))
    if other := _other_feature(edits, steering, seed):
        found.append(Control("another-feature", (other,), "feature"))
    return found


def norms(edits: Sequence[Edit], steering: "Steering") -> dict[str, float]:
    """Hook point -> length of the vector that all edits there add together."""
    sums: dict[str, np.ndarray] = {}
    for edit in edits:
        hook, vector = _vector(edit, steering)
        weight = 1.0 if edit.mode in _PAIRED else edit.strength
        sums[hook] = sums.get(hook, np.zeros(len(vector))) + weight * vector
    return {hook: float(np.linalg.norm(total)) for hook, total in sums.items()}


def _decoded(
    model: "LanguageModel",
    steering: "Steering | None",
    batch: Sequence[Ask],
    sampling: Sampling,
    told: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> list[tuple[str, bool]] | None:
    """Texts of a batch and whether each looped; None if it was stopped."""
    from explorer.generate import Row, stream

    rows = [Row(_tokens(model, ask.prompt), _moving(ask.edits), ask.seed) for ask in batch]
    answers: list[list[int]] = [[] for _ in rows]
    stopped = False

    def stop() -> bool:
        nonlocal stopped
        stopped = stopped or should_stop()
        return stopped

    for step, tokens in enumerate(stream(model, rows, sampling, steering, should_stop=stop), 1):
        for answer, token in zip(answers, tokens, strict=True):
            if token is not None and token not in model.eos_ids:
                answer.append(token)
        told(step)
    return None if stopped else [_cut(model, answer) for answer in answers]


def _tokens(model: "LanguageModel", prompt: Prompt) -> tuple[int, ...]:
    if not isinstance(prompt, str):
        return model.chat_document([dict(turn) for turn in prompt], add_generation_prompt=True).tokens
    if model.has_template:
        return model.chat_document([{"role": "user", "content": prompt}], add_generation_prompt=True).tokens
    return model.text_document(prompt).tokens


def _moving(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """Without the edits that change nothing: at strength 0 the answer is the baseline's."""
    return tuple(e for e in edits if not mode(e.mode).uses_strength or e.strength != mode(e.mode).neutral)


def _cut(model: "LanguageModel", answer: Sequence[int]) -> tuple[str, bool]:
    at = first_loop([model.vocabulary.text([token]) for token in answer])
    return model.vocabulary.text(answer[:at]).strip(), at is not None


def _point(strength: float, cells: Sequence[Cell], known: Mapping[str, float | None]) -> DosePoint:
    means, rates = {}, {}
    for name in cells[0].scores:
        values = [c.scores[name] for c in cells if not math.isnan(c.scores[name])]
        means[name] = sum(values) / len(values) if values else math.nan
        if (threshold := known.get(name)) is not None:
            rates[name] = rate(cells, name, threshold)
    return DosePoint(strength, len(cells), means, whole(cells).value, rates)


def _vector(edit: Edit, steering: "Steering") -> tuple[str, np.ndarray]:
    """Where an edit of strength 1 pushes, and what it adds there."""
    if edit.direction:
        direction = steering.directions[edit.direction]
        return direction.hook_point, direction.vector.astype(np.float64)
    assert steering.coder is not None
    row = steering.coder.direction(edit.feature).double().cpu().numpy()
    return steering.coder.hook_point, row * float(steering.maxima[edit.feature])


def _random(edits: Sequence[Edit], steering: "Steering", seed: int, name: str) -> Control:
    made, directions = [], {}
    for at, (hook, norm) in enumerate(norms(edits, steering).items()):
        here = [e for e in edits if _vector(e, steering)[0] == hook]
        width = len(_vector(here[0], steering)[1])
        own = name if at == 0 else f"{name}-{at + 1}"
        directions[own] = random_direction(norm, width, hook, seed * 101 + at, own)
        kind = here[0].mode if len({e.mode for e in here}) == 1 else "add"
        made.append(Edit(strength=here[0].strength if kind in _PAIRED else 1.0, mode=kind, direction=own))
    return Control(name, tuple(made), "random", directions)


def _other_feature(edits: Sequence[Edit], steering: "Steering", seed: int) -> Edit | None:
    """A feature that is not steered, pushed as far as the edits push; None where none is known."""
    coder, taken = steering.coder, {e.feature for e in edits}
    lives = [f for f, largest in steering.maxima.items() if f not in taken and largest > 0]
    if coder is None or not lives:
        return None
    chosen = lives[int(np.random.default_rng(seed).integers(len(lives)))]
    size = norms(edits, steering)
    unit = float(coder.direction(chosen).norm()) * float(steering.maxima[chosen])
    strength = size.get(coder.hook_point, max(size.values(), default=0.0)) / max(unit, 1e-12)
    kind = edits[0].mode if edits and edits[0].mode in _PAIRED else "add"
    return Edit(chosen, edits[0].strength if kind in _PAIRED else strength, kind)
