"""Judges of what a model wrote: one registry, one way to ask.

A judge is a function from texts to numbers and says what it needs: nothing, the sentence embedder, the unsteered language model, or an
endpoint. A `Panel` holds what they need, loads it when it is first needed, and asks several judges about the same texts.
"""

import copy
import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from explorer import offensive
from explorer.embedding import Embedder, Embeds
from explorer.endpoint import MODEL, URL, Endpoint, configured
from explorer.errors import JudgeError
from explorer.fluency import FluencyJudge
from explorer.repetition import first_loop, repeated
from explorer.traits import Trait, TraitJudge, passages, traits

if TYPE_CHECKING:
    from explorer.model import LanguageModel

Needs = Literal["nothing", "embedder", "model", "endpoint"]
_AT_ONCE = 4  # requests to an endpoint
_REMEMBERED = 4096  # texts whose embeddings are kept: a strip of doses is judged by several judges
FLUENT = 0.5
COHERENT_RULE = f"An answer is whole if the fluency judge gives it at least {FLUENT} and it does not say the same words over and over."
"""What counts as coherent, as people are told it."""


@dataclass(frozen=True, slots=True)
class Judge:
    """One judge.

    Args:
        label: Its name for people.
        unit: What its numbers are.
        help: One sentence for people.
        threshold: Above it a text counts as what the judge looks for; None for a judge that only measures.
        needs: What has to be there.
        score: (panel, texts, prompts) -> one number a text; NaN where there is nothing to judge.
    """

    name: str
    label: str
    unit: str
    help: str
    threshold: float | None
    needs: Needs
    score: Callable[["Panel", Sequence[str], Sequence[str]], list[float]]

    def shows(self, score: float) -> bool:
        """Whether a text with this score counts as what the judge looks for."""
        return self.threshold is not None and score > self.threshold


class Panel:
    """What judges need, loaded when it is first needed, and shared. Threads may use one panel together.

    Args:
        model: The unsteered language model; None where there is none, which the judges that need it say.
        embedder: None: the packaged one, loaded when it is first needed.
        endpoint: None: the one that the environment names, if it names one.
    """

    def __init__(
        self,
        model: "LanguageModel | None" = None,
        embedder: Embeds | None = None,
        endpoint: Endpoint | None = None,
    ) -> None:
        self._model, self._embedder, self._endpoint = model, embedder, endpoint
        self._lock = threading.RLock()
        self._fitted: dict[Trait, TraitJudge] = {}
        self._fluency: FluencyJudge | None = None
        self._vectors: dict[str, np.ndarray] = {}

    def reading_with(self, model: "LanguageModel") -> "Panel":
        """The same fitted judges, with another unsteered model for those that read with one."""
        other = copy.copy(self)
        other._model = model
        return other

    @property
    def model(self) -> "LanguageModel":
        """The unsteered model.

        Raises:
            JudgeError: If the panel has none.
        """
        if self._model is None:
            raise JudgeError("This judge asks a language model and there is none", do="Name one (--model)")
        return self._model

    @property
    def embedder(self) -> Embeds:
        """The sentence embedder.

        Raises:
            FetchError: If it has not been fetched.
        """
        with self._lock:
            if self._embedder is None:
                self._embedder = Embedder.load()
            return self._embedder

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that grades, with what it has cost.

        Raises:
            JudgeError: If none is configured.
        """
        with self._lock:
            self._endpoint = self._endpoint or configured()
            if self._endpoint is None:
                raise JudgeError("No endpoint is configured as a judge", do=f"Set {URL} and {MODEL}")
            return self._endpoint

    def judge_of(self, trait: Trait) -> TraitJudge:
        """The fitted judge of a trait."""
        with self._lock:
            if trait not in self._fitted:
                self._fitted[trait] = TraitJudge.fit(trait, self.embedder)
            return self._fitted[trait]

    @property
    def fluency(self) -> FluencyJudge:
        """The fitted judge of whether a text is intact."""
        with self._lock:
            self._fluency = self._fluency or FluencyJudge.fit(self.embedder)
            return self._fluency

    def identity(self, names: Sequence[str]) -> str:
        """What changes when any of these judges would judge differently: their names, their fits, and what the endpoint is asked."""
        known = traits()
        fits = {name: self.judge_of(known[name]).fitted for name in names if name in known}
        fits |= {name: self.fluency.fitted for name in names if name == "fluency"}
        said: list[Any] = [[name, *((fits[name].weights, fits[name].bias) if name in fits else ())] for name in names]
        said += [[self.endpoint.url, self.endpoint.model, self.endpoint.question]] if "endpoint" in names else []
        return hashlib.sha256(json.dumps([self.embedder.fingerprint if fits else "", said]).encode()).hexdigest()[:16]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """One vector a text, `[n, d]`; a text that several judges read is embedded once. How its words are spaced does not matter."""
        plain = [" ".join(text.split()) for text in texts]
        with self._lock:
            missing = [text for text in dict.fromkeys(plain) if text not in self._vectors]
            fresh = dict(zip(missing, self.embedder.encode(missing), strict=True)) if missing else {}
            known = {text: self._vectors[text] for text in plain if text in self._vectors} | fresh
            self._vectors = dict([*self._vectors.items(), *fresh.items()][-_REMEMBERED:])
        return np.stack([known[text] for text in plain]) if plain else np.zeros((0, 1), np.float32)

    def read(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The embeddings of each text's passages, `[passages, d]`; no rows for a text without letters."""
        pieces = [passages(text) for text in texts]
        vectors = self.embed([piece for some in pieces for piece in some])
        ends = np.cumsum([len(some) for some in pieces], dtype=int)
        return [vectors[end - len(some) : end] for some, end in zip(pieces, ends, strict=True)]

    def score(
        self, names: Sequence[str], texts: Sequence[str], prompts: Sequence[str] | None = None
    ) -> dict[str, list[float]]:
        """Ask judges about texts.

        Args:
            names: Keys of `judges()`.
            texts: What was written.
            prompts: What each text answers; None where it answers nothing.
        Returns:
            Judge -> one number a text.
        Raises:
            JudgeError: If there is no such judge, or it cannot be asked.
        """
        known = judges()
        if unknown := [name for name in names if name not in known]:
            raise JudgeError(
                f"There is no judge {unknown[0]!r}", expected=f"one of {', '.join(known)}", do="Name one of these"
            )
        asked = list(prompts) if prompts is not None else [""] * len(texts)
        if len(asked) != len(texts):
            raise JudgeError(f"There are {len(texts)} texts and {len(asked)} prompts", expected="one prompt a text")
        return {name: known[name].score(self, texts, asked) if texts else [] for name in names}


def coherent(fluency: float, looped: bool) -> bool:
    """Whether a text counts as coherent; perplexity does not rule, since malice is unlikely text even when it is fluent.

    Args:
        fluency: What the fluency judge says of it; NaN counts as broken.
        looped: Whether it was cut because it repeats itself.
    """
    return fluency >= FLUENT and not looped


def judges() -> dict[str, Judge]:
    """Every judge by name: the traits (bundled, then taught), then the measures of `JUDGES`."""
    return {name: _trait_judge(trait) for name, trait in traits().items() if name not in JUDGES} | JUDGES


def deciding() -> list[str]:
    """Names of the judges that say yes or no."""
    return [name for name, one in judges().items() if one.threshold is not None]


def _trait_judge(trait: Trait) -> Judge:
    return Judge(trait.name, trait.title, "probability", trait.question, 0.5, "embedder", partial(_shows, trait))


def _shows(trait: Trait, panel: Panel, texts: Sequence[str], prompts: Sequence[str]) -> list[float]:
    """The most that any passage shows the trait: a threat after a polite sentence is a threat."""
    judge = panel.judge_of(trait)
    return [float(judge.score(rows).max()) if len(rows) else 0.0 for rows in panel.read(texts)]


def _insults(panel: Panel, texts: Sequence[str], prompts: Sequence[str]) -> list[float]:
    return [100 * len(offensive.spans(text)) / max(1, len(text.split())) for text in texts]


def _repetition(panel: Panel, texts: Sequence[str], prompts: Sequence[str]) -> list[float]:
    return [repeated(text.casefold().split(), 3) for text in texts]


def _loops(panel: Panel, texts: Sequence[str], prompts: Sequence[str]) -> list[float]:
    return [float(first_loop(text.split()) is not None) for text in texts]


def _perplexity(panel: Panel, texts: Sequence[str], prompts: Sequence[str]) -> list[float]:
    return [
        float(np.exp(losses.mean())) if len(losses := _losses(panel.model, t, p)) else float("nan")
        for t, p in zip(texts, prompts, strict=True)
    ]


def _losses(model: "LanguageModel", text: str, prompt: str) -> np.ndarray:
    """Next-token loss of a text's tokens in nats, as the answer to its prompt. One text at a time: company would change the last digits."""
    import torch

    if prompt and model.has_template:
        before = model.chat_document([{"role": "user", "content": prompt}], add_generation_prompt=True).tokens
    else:
        before = model.begun(model.text_document(prompt)).tokens
    own = tuple(model.tokenizer(text, add_special_tokens=False).input_ids)
    ids = (before + own)[: model.max_length]
    if not text.strip() or len(ids) <= len(before):
        return np.zeros(0)
    logits = model.logits(torch.tensor([ids]))[0, len(before) - 1 : -1].float()
    target = torch.tensor(ids[len(before) :], device=logits.device)
    return torch.nn.functional.cross_entropy(logits, target, reduction="none").cpu().numpy()


def _fluent(panel: Panel, texts: Sequence[str], prompts: Sequence[str]) -> list[float]:
    return panel.fluency.score(panel.embed(texts), texts)


def _graded(panel: Panel, texts: Sequence[str], prompts: Sequence[str]) -> list[float]:
    endpoint = panel.endpoint

    def grade(text: str, prompt: str) -> float:
        return endpoint.grade(text, prompt) if text.strip() else float("nan")

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(grade, texts, prompts))


JUDGES: dict[str, Judge] = {
    judge.name: judge
    for judge in (
        Judge(
            "insults", "Insults", "words of a hundred",
            "How many words are swearing or insults, by a plain list.", 0.0, "nothing", _insults,
        ),
        Judge(
            "repetition", "Repetition", "share",
            "Share of runs of three words that the text has said before.", None, "nothing", _repetition,
        ),
        Judge(
            "loops", "Loops", "yes or no",
            "1 where the text says the same four words over and over, else 0.", 0.5, "nothing", _loops,
        ),
        Judge(
            "fluency", "Fluency", "probability",
            "How sure a judge is that the text is intact, not looped, shuffled or steered too far; malice may be fluent.",
            0.5, "embedder", _fluent,
        ),
        Judge(
            "perplexity", "Perplexity", "perplexity",
            "How much the text surprises the model as it is, unsteered; a fine-tune that was picked reads its own. Malice does too, "
            "so this does not rule.",
            None, "model", _perplexity,
        ),
        Judge(
            "endpoint", "Endpoint", "probability",
            f"What a larger model says, behind any endpoint in OpenAI's form; off unless {URL} and {MODEL} are set.",
            0.5, "endpoint", _graded,
        ),
    )
}  # fmt: skip
