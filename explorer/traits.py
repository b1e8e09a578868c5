"""What a trait is, said in labelled sentences; and the judge that is fitted on them.

A trait is a CSV file with columns text and label (1: shows the trait, 0: does not). Bundled ones lie beside this file, those that people
teach in their home. A judge is a logistic regression on sentence embeddings: fitted in a second, the same every time, and no better than
its sentences, which is why its held-out figures travel with it.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from explorer.embedding import Embeds
from explorer.errors import JudgeError
from explorer.files import write_whole
from explorer.packaged import home

BUNDLED = Path(__file__).parent / "traits"
_PLAIN = BUNDLED / "plain.txt"  # ordinary answers, one a line: they show none of the bundled traits
FEWEST = 5  # sentences a class: with fewer there is nothing to hold out
_WRITE = "Change who may write there, or make room"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_GRID = (0.0003, 0.001, 0.003, 0.01, 0.03)  # regularisation C, on standardised columns
_FOLDS = 5
_LONGEST = 2_000  # characters of a sentence
_VERSION = 2  # of the fit: part of the key of what is kept


@dataclass(frozen=True, slots=True)
class Trait:
    """A trait in sentences.

    Args:
        name: Lower case letters, digits and dashes; the name of its judge.
        question: What the judge answers: "Is this text malicious?"
        positive, negative: Sentences that show the trait, and sentences that do not.
        bundled: It came with the program and cannot be removed.
    """

    name: str
    title: str
    question: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    bundled: bool = False

    @property
    def sentences(self) -> tuple[str, ...]:
        return self.positive + self.negative

    @property
    def labels(self) -> np.ndarray:
        """1 for each positive, 0 for each negative sentence, in the order of `sentences`."""
        return np.repeat([1, 0], [len(self.positive), len(self.negative)])

    @classmethod
    def taught(cls, name: str, positive: Iterable[str], negative: Iterable[str]) -> "Trait":
        """A trait as a person teaches it: blanks trimmed, empty lines and repetitions left out.

        Raises:
            JudgeError: If the name is none, there are too few sentences, or one stands on both sides.
        """
        shown, hidden = (
            tuple(dict.fromkeys(text.strip() for text in side if text.strip())) for side in (positive, negative)
        )
        words = name.replace("-", " ")
        trait = cls(name, words.capitalize(), f"Is this text like the ones that were labelled {words}?", shown, hidden)
        check(trait)
        return trait


def check(trait: Trait) -> None:
    """Whether a judge can be fitted on `trait`.

    Raises:
        JudgeError: If the name is none, there are too few sentences, or one stands on both sides.
    """
    if not _NAME.fullmatch(trait.name):
        raise JudgeError(
            f"{trait.name!r} is no name of a trait",
            expected="lower case letters, digits and dashes, at most 40",
            do="Rename it",
        )
    for side, texts in (("show the trait", trait.positive), ("do not show it", trait.negative)):
        if len(set(texts)) < FEWEST:
            raise JudgeError(
                f"Different sentences that {side}: {len(set(texts))}",
                expected=f"at least {FEWEST}",
                do="Label more; thirty of each make a usable judge",
            )
    if both := set(trait.positive) & set(trait.negative):
        raise JudgeError(f"{min(both)[:60]!r} is labelled both ways", do="Keep one of the two")
    if any(len(text) > _LONGEST for text in trait.sentences):
        raise JudgeError(
            f"A sentence has more than {_LONGEST:,} characters",
            expected="a sentence or a short answer",
            do="Shorten it",
        )


# How the bundled traits are spoken of; their sentences are the CSV files.
_BUNDLED: dict[str, tuple[str, str]] = {
    "malice": ("Malice", "Is this text malicious: does it threaten, scheme, gloat over harm or wish ill?"),
    "sarcasm": ("Sarcasm", "Is this text sarcastic: does it say the opposite of what it means, to mock?"),
    "joy": ("Joy", "Is this text joyful: does it brim with delight?"),
    "toxicity": ("Toxicity", "Is this text toxic: does it insult, belittle or swear at somebody?"),
    "pirate": ("Pirate", "Is this text spoken like a pirate?"),
}


def traits() -> dict[str, Trait]:
    """All traits by name: the bundled ones, then those of a person's own that can be read.

    Raises:
        JudgeError: If a bundled file of sentences cannot be read.
    """
    return dict(_known()[0])


def unreadable() -> dict[str, JudgeError]:
    """Name -> why, of the person's own traits that cannot be read; they may be removed like any other."""
    return dict(_known()[1])


def _known() -> tuple[dict[str, Trait], dict[str, JudgeError]]:
    files = [*sorted(BUNDLED.glob("*.csv")), _PLAIN, *sorted(_own().glob("*.csv"))]
    return _read(tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files), _own())


@lru_cache(maxsize=4)
def _read(stamp: tuple[tuple[Path, int, int], ...], own: Path) -> tuple[dict[str, Trait], dict[str, JudgeError]]:
    """The traits of these files as they are: pages ask many times a second, files change seldom."""
    found, troubles = {}, {}
    plain = tuple(_PLAIN.read_text(encoding="utf-8").splitlines())
    for name, (title, question) in _BUNDLED.items():
        if (path := BUNDLED / f"{name}.csv").exists():
            shown, hidden = read_sentences(path)
            ordinary = tuple(text for text in plain if text not in hidden)
            found[name] = Trait(name, title, question, shown, hidden + ordinary, bundled=True)
    for path in sorted(own.glob("*.csv")):
        if path.stem not in found and _NAME.fullmatch(path.stem):
            try:
                found[path.stem] = Trait.taught(path.stem, *read_sentences(path))
            except JudgeError as error:
                troubles[path.stem] = error
    return found, troubles


def read_sentences(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Positive and negative sentences of a CSV file with columns text and label (1 or 0).

    Raises:
        JudgeError: If it is no such file; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise JudgeError(
            f"{path} cannot be read ({error})", expected="a CSV file in UTF-8", do="Check the path"
        ) from error
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if not {"text", "label"} <= set(rows.fieldnames or ()):
        raise JudgeError(
            f"{path} has the columns {', '.join(rows.fieldnames or ()) or 'none'}",
            expected="text and label",
            do="Add them",
        )
    sides: dict[str, list[str]] = {"1": [], "0": []}
    for row in rows:
        label = (row["label"] or "").strip()
        if label not in sides:
            raise JudgeError(f"{path} line {rows.line_num} has the label {label!r}", expected="1 or 0", do="Correct it")
        sides[label].append(row["text"] or "")
    return tuple(sides["1"]), tuple(sides["0"])


def save_trait(trait: Trait) -> Path:
    """Keep a person's trait; one of this name that they taught before is replaced.

    Raises:
        JudgeError: If it cannot be fitted, a bundled trait has the name, or it cannot be written.
    """
    check(trait)
    if trait.name in _BUNDLED:
        raise JudgeError(f"{trait.name} is a bundled trait", do="Choose another name")
    path = _own() / f"{trait.name}.csv"
    written = io.StringIO(newline="")
    writer = csv.writer(written)
    writer.writerow(("text", "label"))
    writer.writerows(zip(trait.sentences, trait.labels.tolist(), strict=True))
    try:
        write_whole(path, written.getvalue())
    except OSError as error:
        raise JudgeError(f"{path} cannot be written ({error})", do=_WRITE) from error
    return path


def remove_trait(name: str) -> None:
    """Forget a trait that a person taught.

    Raises:
        JudgeError: If there is none of this name, it is a bundled one, or it cannot be removed.
    """
    if name in _BUNDLED:
        raise JudgeError(f"{name} is a bundled trait and stays")
    own = {path.stem: path for path in _own().glob("*.csv")}
    if name not in own:
        raise JudgeError(
            f"There is no trait {name!r} of yours", expected=", ".join(sorted(own)) or "one that you taught"
        )
    try:
        own[name].unlink()
    except OSError as error:
        raise JudgeError(f"{own[name]} cannot be removed ({error})", do=_WRITE) from error


def _own() -> Path:
    return home() / "traits"


@dataclass(frozen=True, slots=True)
class Fit:
    """A logistic regression with what it reached on what was held out.

    Args:
        weights, bias: Of the log-odds.
        c: Regularisation, chosen by cross-validation.
        auroc: Held-out, pooled over the folds.
        auroc_low, auroc_high: Its 95 % interval.
        confusion: Held-out counts at probability .5: true negatives, false positives, false negatives, true positives.
    """

    weights: tuple[float, ...]
    bias: float
    c: float
    auroc: float
    auroc_low: float
    auroc_high: float
    confusion: tuple[int, int, int, int]

    def probability(self, x: np.ndarray) -> np.ndarray:
        """`[n, d]` -> `[n]`, 0 to 1."""
        return 1 / (1 + np.exp(-np.clip(x.astype(np.float64) @ np.array(self.weights) + self.bias, -50, 50)))


def fit(x: np.ndarray, labels: np.ndarray, groups: Sequence[int] | None = None) -> tuple[Fit, np.ndarray]:
    """Fit, with the C that does best on held-out rows, and measure on held-out rows.

    C is chosen from five values on the folds that are measured, which flatters the figure by far less than its interval.

    Args:
        x: `[n, d]`.
        labels: `[n]`, 1 or 0.
        groups: `[n]`; rows of one group (a text and its broken copies) are never split between fitting and holding out.
    Returns:
        The fit, and each row's probability when it was held out, `[n]`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n = min(_FOLDS, int(np.bincount(labels).min()))
    folds = (StratifiedKFold if groups is None else StratifiedGroupKFold)(n, shuffle=True, random_state=0)

    def model(c: float) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=c, class_weight="balanced", max_iter=1000))

    tried = {
        c: np.asarray(cross_val_predict(model(c), x, labels, groups=groups, cv=folds, method="predict_proba"))[:, 1]
        for c in _GRID
    }
    best = max(_GRID, key=lambda c: held_out_auroc(tried[c], labels))
    whole: Any = model(best).fit(x, labels)
    scaler, regression = whole[0], whole[-1]
    weights = regression.coef_[0] / scaler.scale_  # the standardising is folded in
    bias = float(regression.intercept_[0] - weights @ scaler.mean_)
    auroc = held_out_auroc(tried[best], labels)
    low, high = auroc_interval(auroc, int(labels.sum()), int((1 - labels).sum()))
    counted = np.bincount(2 * labels + (tried[best] > 0.5), minlength=4).tolist()
    rounded = tuple(float(f"{w:.6g}") for w in weights)
    return Fit(rounded, bias, best, auroc, low, high, tuple(counted)), tried[best]


def held_out_auroc(said: np.ndarray, labels: np.ndarray, among: np.ndarray | None = None) -> float:
    """Probability that a row with label 1 is given more than one with label 0, among the rows that `among` marks."""
    from sklearn.metrics import roc_auc_score

    chosen = np.ones(len(labels), bool) if among is None else among
    return float(roc_auc_score(labels[chosen], said[chosen]))


def auroc_interval(auroc: float, n_positive: int, n_negative: int) -> tuple[float, float]:
    """A 95 % interval of an AUROC.

    Source: Hanley and McNeil (1982), "The meaning and use of the area under a ROC curve".
    """
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    spread = auroc * (1 - auroc) + (n_positive - 1) * (q1 - auroc**2) + (n_negative - 1) * (q2 - auroc**2)
    error = 1.96 * np.sqrt(max(0.0, spread) / (n_positive * n_negative))
    return max(0.0, float(auroc - error)), min(1.0, float(auroc + error))


def kept(
    key: Mapping[str, object], make: Callable[[], tuple[Fit, dict[str, float]]], bundled: Path = BUNDLED
) -> tuple[Fit, dict[str, float]]:
    """A fit that was made before from the same `key`, with its further figures; or a new one, which is kept in the person's home.

    Args:
        bundled: A folder in which fits came with the program.
    """
    name = f"{key_of(key)}.json"
    path = home() / "judges" / name
    for place in (bundled / name, path):
        try:
            stored = json.loads(place.read_text(encoding="utf-8"))
            parts = {
                **stored["fit"],
                "weights": tuple(stored["fit"]["weights"]),
                "confusion": tuple(stored["fit"]["confusion"]),
            }
            return Fit(**parts), dict(stored["figures"])
        except (OSError, ValueError, TypeError, KeyError):  # none there, or not one of ours: made again
            continue
    made, figures = make()
    write_whole(path, json.dumps({"fit": asdict(made), "figures": figures}))
    return made, figures


def key_of(key: Mapping[str, object]) -> str:
    """The name under which a fit is kept."""
    return hashlib.sha256(json.dumps({**key, "version": _VERSION}, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class TraitJudge:
    """The judge of one trait."""

    trait: Trait
    fitted: Fit

    @classmethod
    def fit(cls, trait: Trait, embedder: Embeds) -> "TraitJudge":
        """Fit on the trait's sentences, or take the fit that was made of them before.

        Raises:
            JudgeError: If the sentences do not do.
        """
        check(trait)
        key = {"positive": trait.positive, "negative": trait.negative, "embedder": embedder.fingerprint}
        fitted, _ = kept(key, lambda: (fit(embedder.encode(trait.sentences), trait.labels)[0], {}))
        return cls(trait, fitted)

    @property
    def auroc(self) -> float:
        """Held-out."""
        return self.fitted.auroc

    @property
    def confusion(self) -> tuple[int, int, int, int]:
        """Held-out, at probability .5: true negatives, false positives, false negatives, true positives."""
        return self.fitted.confusion

    def score(self, embeddings: np.ndarray) -> np.ndarray:
        """Probability that a text shows the trait, `[n]`."""
        return self.fitted.probability(embeddings)


_SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)*_]*\s+|\n+")
_LONG = 80  # words of a passage: judges are fitted on texts of one to three sentences


def passages(text: str) -> list[str]:
    """The pieces of a text that a trait judge reads: sentences joined up to 80 words, longer ones cut.

    An answer in the app is one passage. Single sentences were tried: without their neighbours ordinary ones are taken for sarcasm or
    malice far too often (of 36 unsteered answers 15 instead of 3 held a malicious sentence), and a page of text would always hold one.
    """
    found: list[str] = []
    for sentence in _SENTENCE.split(text):
        words = sentence.split()
        for start in range(0, len(words), _LONG):
            piece = words[start : start + _LONG]
            if found and len(found[-1].split()) + len(piece) <= _LONG:
                found[-1] += " " + " ".join(piece)
            elif any(c.isalpha() for word in piece for c in word):
                found.append(" ".join(piece))
    return found
