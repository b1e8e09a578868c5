"""What a fine-tune moved: mean activations of every feature in two models, on their own answers and on the same text.

What changed is a candidate, not a cause: `explorer.causing` steers with it. The two readings differ and both are kept: a tuned model that
writes other text fires other features on it, and a tuned model that reads the base's text may hardly differ.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explorer.errors import SaeError

if TYPE_CHECKING:
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder

KINDS: dict[str, str] = {
    "prompt": "The tokens of the question.",
    "last": "The last token before the answer: where the model makes up its mind.",
    "answer": "The tokens of the answer.",
}
SOURCES: dict[str, str] = {
    "own": "Each model reads its own answers.",
    "shared": "Both models read the base's answers: the same text.",
}
UNTESTED = 6
"""So many of the largest rises, and of the largest falls, are listed though nobody tested them."""
FEWEST = 5  # answers of either kind from which a model says how well a feature tells them apart
_RESAMPLES = 400
_BUDGET = 8192  # tokens of a forward pass, padding included
_ENCODED = 1024  # tokens that are encoded at once: a wide SAE's activations are large

Said = tuple[str, str]
"""A question and its answer."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What a model's features do on answers.

    Args:
        said: The questions and answers.
        means: Kind of position -> mean activation of every feature over the tokens of that kind, `[answers, n_features]` float32, in SAE
            units; a row without such tokens is nan.
        largest: The largest activation of every feature on any of these tokens, `[n_features]`.
    """

    said: tuple[Said, ...]
    means: Mapping[str, np.ndarray]
    largest: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """How the features' means differ between two models, all `[n_features]` in SAE units.

    Args:
        base, tuned: Means over questions.
        low, high: 95 % interval of tuned - base, by drawing questions again; of what lies beyond the control none is kept.
        control: The same difference for the control fine-tune; nan where there is none.
    """

    base: np.ndarray
    tuned: np.ndarray
    low: np.ndarray
    high: np.ndarray
    control: np.ndarray

    @property
    def change(self) -> np.ndarray:
        return self.tuned - self.base

    @property
    def beyond_control(self) -> np.ndarray:
        """The change, less what the control changed; the change itself where there is no control."""
        return self.change - np.nan_to_num(self.control)

    def order(self, *, beyond: bool = False) -> np.ndarray:
        """Feature numbers, the largest rise first, the largest fall last.

        Args:
            beyond: By what lies beyond the control.
        """
        return np.argsort(-np.nan_to_num(self._by(beyond), nan=-np.inf), kind="stable")

    def listed(self, tested: Iterable[int], *, beyond: bool = False, n: int = UNTESTED) -> list[int]:
        """The features that were tested, and the largest rises and falls that nobody tested, in their order.

        Args:
            n: At most so many rises, and so many falls.
        """
        known, values = set(tested), self._by(beyond)
        others = [f for f in self.order(beyond=beyond).tolist() if f not in known]
        rises, falls = [f for f in others if values[f] > 0], [f for f in others if values[f] < 0]
        shown = known | {*rises[:n], *falls[-n:]}
        return [f for f in self.order(beyond=beyond).tolist() if f in shown]

    def _by(self, beyond: bool) -> np.ndarray:
        return self.beyond_control if beyond else self.change


@dataclass(frozen=True, slots=True, eq=False)
class Diff:
    """Two models compared.

    Args:
        changes: (source, kind) -> change; keys of `SOURCES` and `KINDS`.
        base, tuned: What each model's features did on its own answers.
    """

    changes: Mapping[tuple[str, str], Change]
    base: Reading
    tuned: Reading

    def drivers(self, feature: int, n: int = 3) -> list[tuple[int, float]]:
        """The tuned model's answers on which a feature is most active: number of the answer and mean activation, strongest first."""
        values = np.nan_to_num(self.tuned.means["answer"][:, feature], nan=-np.inf)
        order = np.argsort(-values, kind="stable")[:n]
        return [(int(at), float(values[at])) for at in order if values[at] > 0]

    def reads(self, shown: np.ndarray) -> np.ndarray:
        """How well each feature's mean over an answer tells the answers of a kind from the others that the same model gave.

        Within each model, since the tuned one gives most answers of the kind: over both at once, whatever moved would seem to read.

        Args:
            shown: `[answers of base + answers of tuned]` bool, which are of the kind.
        Returns:
            AUROC, `[n_features]`, over all pairs of one model; .5 where no model gave at least `FEWEST` answers of either kind.
        """
        from explorer.intervals import auroc

        total, pairs = np.zeros(self.base.means["answer"].shape[1]), 0
        halves = np.split(np.asarray(shown, bool), [len(self.base.means["answer"])])
        for reading, kind in zip((self.base, self.tuned), halves, strict=True):
            values = reading.means["answer"]
            there = ~np.isnan(values).any(1)
            values, kind = values[there], kind[there]
            if min(n := (int(kind.sum()), int((~kind).sum()))) >= FEWEST:
                total, pairs = total + n[0] * n[1] * auroc(values, kind), pairs + n[0] * n[1]
        return total / pairs if pairs else np.full_like(total, 0.5)


def read(
    model: "LanguageModel",
    coder: "SparseCoder",
    said: Sequence[Said],
    *,
    progress: Progress = lambda *_: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Reading:
    """Mean activations over prompt, last prompt token and answer; sinks, template and special tokens count only as the last token.

    Args:
        said: Questions and answers; what is longer than the model's context is cut at its end.
        should_stop: Asked before each batch; it may wait. What was not read then is nan.
    Raises:
        SaeError: If the SAE does not fit the model.
    """
    import torch

    from explorer.evidence import SINK_FACTOR

    if model.hook_point(coder.hook_point).residual and coder.d_in != model.d_model:
        raise SaeError(
            f"{coder.source} reads vectors of length {coder.d_in}, {model.name} has {model.d_model}",
            expected="an SAE that was made with this model",
            do="Choose the model that it was made with",
        )
    marked = [_marked(model, question, answer) for question, answer in said]
    sums = torch.zeros(len(said) * len(KINDS), coder.n_features)
    counts, largest = torch.zeros(len(sums)), torch.zeros(coder.n_features)
    median = coder.metadata.get("median_norm")
    order = sorted(range(len(said)), key=lambda at: -len(marked[at][0]))
    done = 0
    while done < len(order) and not should_stop():
        width = len(marked[order[done]][0])
        rows = order[done : done + max(1, _BUDGET // max(1, width))]
        ids = torch.zeros(len(rows), max(1, width), dtype=torch.long)
        kinds = torch.zeros(ids.shape, dtype=torch.long)
        for at, row in enumerate(rows):
            tokens, kind = marked[row]
            ids[at, : len(tokens)], kinds[at, : len(tokens)] = torch.tensor(tokens), torch.from_numpy(kind)
        with torch.inference_mode():
            resid = model.activations(
                ids, coder.hook_point
            )  # padding lies on the right, where no real token can see it
            norms = torch.linalg.vector_norm(resid, dim=-1, dtype=torch.float32).cpu()
            if median is None:
                median = float(norms[kinds > 0].median()) if (kinds > 0).any() else 1.0
            chosen = ((kinds > 0) & (norms <= SINK_FACTOR * median)).nonzero()
            for part in chosen.split(_ENCODED):
                acts = coder.encode(resid[part[:, 0], part[:, 1]]).float().cpu()
                target = torch.tensor(rows)[part[:, 0]] * len(KINDS) + kinds[part[:, 0], part[:, 1]] - 1
                largest = torch.maximum(largest, acts.amax(0))
                sums.index_add_(0, target, acts)
                counts.index_add_(0, target, torch.ones(len(part)))
        done += len(rows)
        progress("reading answers", done, len(said))
    means = (sums / counts[:, None]).view(len(said), len(KINDS), -1).numpy()
    return Reading(
        tuple(said), {kind: np.ascontiguousarray(means[:, at]) for at, kind in enumerate(KINDS)}, largest.numpy()
    )


def diff(
    base: "LanguageModel",
    tuned: "LanguageModel",
    coder: "SparseCoder",
    base_said: Sequence[Said],
    tuned_said: Sequence[Said],
    *,
    control: "tuple[LanguageModel, Sequence[Said]] | None" = None,
    seed: int = 0,
    progress: Progress = lambda *_: None,
) -> Diff:
    """Compare two models on their own answers to the same questions, and on the base's answers.

    Args:
        base_said, tuned_said: What each answered, the same number of answers to each question: equal sets, or their means differ by that.
        control: A fine-tune that should have moved nothing of interest, with its own answers.
        seed: Of the resampling.
    """
    own, theirs, same = (
        read(model, coder, said, progress=progress)
        for model, said in ((base, base_said), (tuned, tuned_said), (tuned, base_said))
    )
    by_source = {"own": theirs, "shared": same}
    by_control: dict[str, Reading] = {}
    if control:
        by_control = {
            "own": read(control[0], coder, control[1], progress=progress),
            "shared": read(control[0], coder, base_said, progress=progress),
        }
    changes = {
        (source, kind): _change(own, by_source[source], by_control.get(source), kind, seed)
        for source in SOURCES
        for kind in KINDS
    }
    return Diff(changes, own, theirs)


def by_question(reading: Reading, kind: str) -> tuple[tuple[str, ...], np.ndarray]:
    """The questions, and the mean of every feature over each one's answers, `[questions, n_features]`.

    Answers to one question are no independent draws.
    """
    questions = tuple(dict.fromkeys(question for question, _ in reading.said))
    where = {question: at for at, question in enumerate(questions)}
    rows = np.array([where[question] for question, _ in reading.said])
    values = reading.means[kind]
    there = ~np.isnan(values).any(1)
    total = np.zeros((len(questions), values.shape[1]))
    np.add.at(total, rows[there], values[there])
    count = np.bincount(rows[there], minlength=len(questions)).astype(float)
    count[count == 0] = np.nan
    return questions, total / count[:, None]


def _change(base: Reading, tuned: Reading, control: Reading | None, kind: str, seed: int) -> Change:
    asked, before = by_question(base, kind)
    answered, after = by_question(tuned, kind)
    assert asked == answered, "both models are asked the same questions"
    there = ~(np.isnan(before).any(1) | np.isnan(after).any(1))
    before, after = before[there], after[there]
    width = before.shape[1]
    if not len(before):
        nothing = np.full(width, np.nan)
        return Change(nothing, nothing, nothing, nothing, nothing)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(before), np.full(len(before), 1 / len(before)), size=_RESAMPLES) / len(before)
    low, high = np.quantile(weights @ (after - before), [0.025, 0.975], axis=0)
    moved = np.full(width, np.nan)
    if control:
        _, elsewhere = by_question(control, kind)
        moved = np.nanmean(elsewhere[there], axis=0) - before.mean(0)
    return Change(before.mean(0), after.mean(0), low, high, moved)


def _marked(model: "LanguageModel", question: str, answer: str) -> tuple[tuple[int, ...], np.ndarray]:
    """Token ids of a question with its answer, and what each token is: 0, or the number of its kind from 1 on."""
    from explorer.evidence import SCORED, judge_text

    if model.has_template:
        asked = [{"role": "user", "content": question}]
        start = len(model.chat_document(asked, add_generation_prompt=True).tokens)
        document = model.chat_document([*asked, {"role": "assistant", "content": answer}])
    else:
        start = len(model.text_document(question).tokens)
        document = model.text_document(question + answer)
    tokens = document.tokens[: model.max_length]
    content = np.zeros(len(tokens), bool)
    for a, b in document.content:
        content[a:b] = True
    evidence = judge_text(np.array(tokens, dtype=np.int64), content, np.array([0]), model.vocabulary.special)
    kinds = np.where(evidence == SCORED, np.where(np.arange(len(tokens)) < start, 1, 3), 0)
    if start <= len(tokens):
        kinds[start - 1] = 2
    return tokens, kinds.astype(np.int64)
