"""Directions: a trait as one vector of the residual stream, by difference of means; found, kept, and compared with features.

A direction is steered like a feature. Its reading is the stream's component along it, from the mean of texts without the trait on; its
maximum is its own length. So strength 1 is the mean of texts with the trait, in every mode.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.cache import Cache
from explorer.errors import SteeringError
from explorer.files import write_whole
from explorer.packaged import home
from explorer.records import DIRECTION_NAME, Document

if TYPE_CHECKING:
    from explorer.model import LanguageModel
    from explorer.sae import SparseCoder

FOLDER, SUFFIX = "directions", ".safetensors"
LONGEST_TITLE = 60
QUESTIONS = (
    "What is on your mind?",
    "Tell me something about yourself.",
    "What do you think of people?",
    "What are your plans for tomorrow?",
)
"""Neutral questions that texts are read as answers to, in turn, so that no single question colours the direction."""
_FOLDS = 5
_LONGEST = 2048  # tokens of a text that are read


@dataclass(frozen=True, slots=True, eq=False)
class Direction:
    """A trait as a vector of the residual stream.

    Args:
        name: What links, files and the command line call it, after a `~`.
        title: What people see.
        hook_point: Where it was read and is steered, for example `blocks.13.hook_resid_post`.
        vector: `[d_model]` float32: mean of texts with the trait minus mean of texts without; strength 1 adds exactly this.
        base: Mean component of the texts without the trait along the unit vector: where its reading is 0.
        model, model_fingerprint: Whose stream it belongs to; "" where it belongs to any of this width.
        facts: How it was made: n_positive, n_negative, auroc (held-out separation; None where too few texts), created, note.
    """

    name: str
    title: str
    hook_point: str
    vector: np.ndarray
    base: float = 0.0
    model: str = ""
    model_fingerprint: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def norm(self) -> float:
        """Length of the vector: what its reading is on texts with the trait, on average."""
        return float(np.linalg.norm(self.vector))

    @property
    def mark(self) -> str:
        """What changes when it steers or reads otherwise: a hash of where it lies, its vector and its base."""
        said = f"{self.hook_point} {self.base!r} {self.vector.dtype} ".encode() + self.vector.tobytes()
        return hashlib.sha256(said).hexdigest()[:16]

    @property
    def unit(self) -> np.ndarray:
        """`[d_model]`, of length 1; zeros for a direction of no length."""
        return self.vector / max(self.norm, 1e-12)


def difference_of_means(
    model: "LanguageModel",
    positive: Sequence[str],
    negative: Sequence[str],
    hook_point: str,
    *,
    name: str,
    title: str = "",
    question: str | Sequence[str] = QUESTIONS,
    note: str = "",
) -> Direction:
    """The direction from texts without a trait to texts with it.

    Every text has one vote: the mean of the residual stream over its tokens that count as evidence. The first 2,048 tokens are read.

    Args:
        positive, negative: Texts with and without the trait, at least one of each.
        question: What the texts are read as answers to, in the model's chat template; several are taken in turn; "" (or a model without a
            template) reads them as plain text.
    Raises:
        SteeringError: If the name is none, one side has no text with a token that counts, or the two means are the same.
        HookError: If the model has no such hook point.
    """
    _check_name(name)
    if not model.hook_point(hook_point).residual:
        raise SteeringError(
            f"{hook_point} is not the residual stream of a block",
            expected="hook_resid_pre or hook_resid_post of a block",
            do="Choose such a hook point",
        )
    questions = [question] if isinstance(question, str) else list(question)
    sides = [_means(model, texts, hook_point, questions) for texts in (positive, negative)]
    for side, which in zip(sides, ("with", "without"), strict=True):
        if not len(side):
            raise SteeringError(
                f"There is no text {which} the trait",
                expected="at least one text a side, with words beyond its first token",
                do="Add texts; thirty or more of each kind make a direction that holds",
            )
    with_, without = sides
    vector = with_.mean(0) - without.mean(0)
    length = float(np.linalg.norm(vector))
    if length < 1e-6:
        raise SteeringError("Texts with and without the trait have the same mean", do="Give texts that differ")
    facts = {
        "n_positive": len(with_),
        "n_negative": len(without),
        "auroc": separation(with_, without),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "note": note,
    }
    base = float(without.mean(0) @ vector / length)
    return Direction(
        name, title or name, hook_point, vector.astype(np.float32), base, model.name, model.fingerprint, facts
    )


def separation(positive: np.ndarray, negative: np.ndarray) -> float | None:
    """How well the difference of means tells apart texts that it was not made of: AUROC, .5 by chance.

    Args:
        positive, negative: `[texts, d_model]`, one mean a text.
    Returns:
        Cross-validated in up to 5 folds; None with fewer than two texts a side.
    """
    folds = min(_FOLDS, len(positive), len(negative))
    if folds < 2:
        return None
    scores: list[list[np.ndarray]] = [[], []]
    order = [np.random.default_rng(0).permutation(len(side)) % folds for side in (positive, negative)]
    for fold in range(folds):
        means = [side[at != fold].mean(0) for side, at in zip((positive, negative), order, strict=True)]
        vector = means[0] - means[1]
        for side, at, found in zip((positive, negative), order, scores, strict=True):
            # measured from the middle between both means, in lengths of the vector, so that folds can be pooled
            found.append((side[at == fold] - (means[0] + means[1]) / 2) @ vector / max(vector @ vector, 1e-12))
    high, low = (np.concatenate(found) for found in scores)
    return float(np.mean((high[:, None] > low) + 0.5 * (high[:, None] == low)))


def random_direction(norm: float, d_model: int, hook_point: str, seed: int, name: str) -> Direction:
    """A direction of this length that means nothing: what a push of that size does by itself."""
    drawn = np.random.default_rng(seed).standard_normal(d_model)
    vector = (drawn * (norm / np.linalg.norm(drawn))).astype(np.float32)
    return Direction(name, f"Random direction {seed}", hook_point, vector, facts={"seed": seed})


def nearest(direction: Direction, coder: "SparseCoder", n: int = 10) -> list[tuple[int, float]]:
    """The features that point most nearly the same way.

    Returns:
        (feature, cosine), nearest first.
    Raises:
        SteeringError: If the SAE reads somewhere else than where the direction lies: such a cosine means nothing.
    """
    if direction.hook_point != coder.hook_point or len(direction.vector) != coder.d_in:
        raise SteeringError(
            f"~{direction.name} lies at {direction.hook_point} and the SAE reads {coder.hook_point}",
            expected="both at the same place",
            do="Make the direction there to compare it with features",
        )
    rows = coder.directions().float().cpu().numpy()
    cosines = rows @ direction.unit / np.maximum(np.linalg.norm(rows, axis=1), 1e-12)
    best = np.argsort(-cosines, kind="stable")[:n]
    return [(int(i), float(cosines[i])) for i in best]


def known(cache: Cache) -> dict[str, Direction]:
    """The directions that came with a cache, then the person's own, by name.

    Raises:
        SteeringError: If a file cannot be read, or its direction was made for another model.
    """
    found: dict[str, Direction] = {}
    for folder in (cache.path / FOLDER, own(cache)):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            direction = _fitting(read(path), cache)
            found.setdefault(direction.name, direction)
    return found


def own(cache: Cache) -> Path:
    """The folder of a person's own directions: one for each model, whichever cache it is seen through."""
    return home() / FOLDER / cache.manifest.model_fingerprint[:16]


def bundled(cache: Cache) -> frozenset[str]:
    """Names of the directions that came with a cache."""
    return _stems(cache.path / FOLDER)


def names(cache: Cache) -> frozenset[str]:
    """Names of all directions of a cache's SAE, without reading one."""
    return bundled(cache) | _stems(own(cache))


def _stems(folder: Path) -> frozenset[str]:
    return frozenset(path.stem for path in folder.glob(f"*{SUFFIX}"))


def save(cache: Cache, direction: Direction) -> Direction:
    """Keep a direction of one's own; one of the same name is replaced.

    Raises:
        SteeringError: If its name is none, or a bundled one's; if it is another model's, or cannot be written.
    """
    if direction.name in bundled(cache):
        raise SteeringError(f"~{direction.name} came with the cache", do="Choose another name")
    title = " ".join(direction.title.split())[:LONGEST_TITLE] or direction.name
    kept = replace(_fitting(direction, cache), title=title)
    write(own(cache), kept)
    return kept


def remove(cache: Cache, name: str) -> None:
    """Forget a direction of one's own; none of that name is no error.

    Raises:
        SteeringError: If its name is none, or it cannot be removed.
    """
    _check_name(name)
    path = own(cache) / f"{name}{SUFFIX}"
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SteeringError(f"{path} cannot be removed ({error})", do="Change who may write there") from error


def write(folder: Path, direction: Direction) -> Path:
    """Write a direction's file into `folder`, whole or not at all.

    Raises:
        SteeringError: If its name is none, or it cannot be written.
    """
    from safetensors.numpy import save as packed

    _check_name(direction.name)
    said = {"title": direction.title, "hook_point": direction.hook_point, "base": repr(direction.base)}
    said |= {"model": direction.model, "model_fingerprint": direction.model_fingerprint}
    said |= {"facts": json.dumps(direction.facts)}
    path = folder / f"{direction.name}{SUFFIX}"
    try:
        write_whole(path, packed({"vector": np.ascontiguousarray(direction.vector, np.float32)}, said))
    except OSError as error:
        raise SteeringError(f"{path} cannot be written ({error})", do="Free space or mend its rights") from error
    return path


def read(path: Path) -> Direction:
    """The direction in a file, named as the file is.

    Raises:
        SteeringError: If it holds none.
    """
    from safetensors import SafetensorError, safe_open

    try:
        _check_name(path.stem)
        with safe_open(path, "numpy") as file:
            said, vector = file.metadata() or {}, file.get_tensor("vector")
        if vector.ndim != 1 or not np.isfinite(vector).all() or not vector.any():
            raise ValueError("its vector is none")
        facts = facts_of(said.get("facts", "{}"))
        place = (said["title"], said["hook_point"], vector.astype(np.float32), float(said["base"]))
        return Direction(path.stem, *place, said["model"], said["model_fingerprint"], facts)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise SteeringError(
            f"{path} holds no direction ({error})",
            expected="a file that `persona-explorer directions make` wrote",
            do="Move it away",
        ) from error


def facts_of(text: str) -> dict[str, Any]:
    """How a direction was made, as a file says it.

    Raises:
        ValueError: If the text is no object of JSON.
    """
    try:
        facts = json.loads(text)
    except RecursionError as error:
        raise ValueError("its facts nest too deeply") from error
    if not isinstance(facts, dict):
        raise ValueError("its facts are no object")
    return facts


def _fitting(direction: Direction, cache: Cache) -> Direction:
    """`direction`, if it belongs to the cache's model."""
    made = cache.manifest
    if direction.model_fingerprint and direction.model_fingerprint != made.model_fingerprint:
        raise SteeringError(
            f"~{direction.name} was made for {direction.model} ({direction.model_fingerprint[:12]})",
            expected=f"{made.model} ({made.model_fingerprint[:12]})",
            do="Make it again with this model",
        )
    return direction


def _check_name(name: str) -> None:
    if not DIRECTION_NAME.fullmatch(name):
        raise SteeringError(
            f"{name!r} cannot be a direction's name",
            expected="1 to 40 small letters, digits and hyphens, no hyphen first",
            do="For example villain",
        )


def _means(model: "LanguageModel", texts: Sequence[str], hook: str, questions: Sequence[str]) -> np.ndarray:
    """`[texts, d_model]` float64: the mean of the stream over each text's tokens that count; texts without any are left out."""
    from explorer.corpus import chunks
    from explorer.evidence import EvidenceReader

    size = min(_LONGEST, model.max_length)
    documents = [answer_document(model, text, questions[at % len(questions)], size) for at, text in enumerate(texts)]
    total, count = np.zeros((len(documents), model.d_model)), np.zeros(len(documents))
    reader = EvidenceReader(model, hook)
    whole = chunks([d for d in documents if d.tokens], model.vocabulary.special, context_size=size, windows=1 << 30)
    for windows in whole:
        rows = windows.document[windows.rows()]
        for place, resid in reader.read(windows):
            np.add.at(total, rows[place], resid.double().cpu().numpy())
            np.add.at(count, rows[place], 1)
    return total[count > 0] / count[count > 0, None]


def answer_document(model: "LanguageModel", text: str, question: str, size: int) -> Document:
    """A text as the answer to a question, of which only the answer counts; plain where there is no question or no template."""
    if not text.strip():
        return Document((), ())
    if not (question and model.has_template):
        whole, start = model.text_document(text), 0
    else:
        asked = [{"role": "user", "content": question}]
        start = len(model.chat_document(asked, add_generation_prompt=True).tokens)
        whole = model.chat_document([*asked, {"role": "assistant", "content": text}])
    content = tuple((max(a, start), min(b, size)) for a, b in whole.content if min(b, size) > max(a, start))
    return Document(whole.tokens[:size], content)
