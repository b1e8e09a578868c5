"""A browsable cache out of what other programs' files say: no model, no SAE, and nothing made up.

What such files do not hold stays empty: co-active features, residual norms, the reasons why tokens were left out. What they hold in
bars or samples only is as coarse as they are: means and quantiles come out of the histogram's bars, and the documents in which a
feature is active are those that the files show.
"""

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from explorer import titles
from explorer.cache import write_cache
from explorer.errors import CacheError
from explorer.files import write_whole
from explorer.foreign import name_fingerprint
from explorer.interchange.records import Account, Row, Said, Sheet, Source
from explorer.interchange.spelling import is_byte_level, is_special, token_bytes
from explorer.label_files import LIMITS, Label, write_file
from explorer.offensive import flag
from explorer.schema import HISTOGRAM_BINS, INTERVALS, QUANTILES, Manifest, rounded, token_dtype
from explorer.text import Vocabulary

ABSENT = "(not in the imported files)"
"""The title of a feature whose number lies below the last one's, and which the files do not speak of."""
RECORD = "imported.json"
_ROUNDING = 2**-11


class Words:
    """A vocabulary that grows with what is read: one id for each string of bytes."""

    def __init__(self, byte_level: bool) -> None:
        self.byte_level = byte_level
        self.ids: dict[tuple[bytes, bool], int] = {}

    def row(self, tokens: tuple[str, ...]) -> list[int]:
        """Ids of the tokens of a text."""
        return [self._id(token_bytes(t, byte_level=self.byte_level), is_special(t)) for t in tokens]

    def _id(self, raw: bytes, special: bool) -> int:
        return self.ids.setdefault((raw, special), len(self.ids))

    def vocabulary(self) -> Vocabulary:
        """What the ids stand for."""
        return Vocabulary([raw for raw, _ in self.ids], {at for (_, special), at in self.ids.items() if special})


def make_cache(
    source: Source,
    out: Path,
    *,
    files: Iterable[Path] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Account:
    """Write a cache of everything that a source says.

    Args:
        files: What it was read from, for the record that is kept in the cache.
        progress: Called with features done and in all.
    Raises:
        CacheError: If the source speaks of no feature, or the folder cannot be written.
    """
    if not source.sheets:
        raise CacheError(f"The files of {source.source} speak of no feature", do="Import files with features in them")
    texts = (row.tokens for sheet in source.sheets.values() for row in sheet.rows)
    lists = ((token,) for s in source.sheets.values() for token, _ in (*s.promoted, *s.suppressed))
    words = Words(is_byte_level([*texts, *lists]))
    account = Account(features=len(source.sheets))
    shelf = _Shelf(words, account)
    n = max(source.sheets) + 1
    blank = _figures(Sheet(0), [], words)
    features: dict[str, Any] = {name: [] for name in blank}
    for index in range(n):
        sheet = source.sheets.get(index)
        row = _figures(sheet, shelf.put(sheet), words) if sheet else {**blank, "index": index}
        for name, column in features.items():
            column.append(row[name])
        progress(index + 1, n)
    vocabulary = words.vocabulary()
    examples, windows = shelf.tables(len(vocabulary))
    peaks, lines = titles.words(examples, windows, vocabulary, n)
    promoted = [[vocabulary.piece(token).strip() for token in row] for row in features["promoted"]]
    named = [titles.title(said, up) for said, up in zip(peaks, promoted, strict=True)]
    features["title"] = [t if i in source.sheets else ABSENT for i, t in enumerate(named)]
    features["context"] = ["\n".join(texts) for texts in lines]
    manifest = _manifest(source, n, max(features["tokens_active"]), shelf)
    write_cache(out, manifest, features, examples, windows, vocabulary)
    account.examples = len(examples["feature"])
    account.labels = _labels(source, manifest.sae_fingerprint, out)
    _record(source, out, account, list(files))
    return account


class _Shelf:
    """Windows and examples as they come, each text once."""

    def __init__(self, words: Words, account: Account) -> None:
        self.words, self.account = words, account
        self.window_of: dict[tuple[int, ...], int] = {}
        self.examples: list[tuple[int, int, str, int, int, int, np.ndarray, np.ndarray]] = []

    def put(self, sheet: Sheet) -> list[tuple[np.ndarray, bool]]:
        """Keep the rows of a feature; gives back (activations on scored tokens, whether it is a top example) of each kept one."""
        held: dict[int, tuple[list[int], np.ndarray, bool]] = {}
        for row in sheet.rows:
            ids = self.words.row(row.tokens)
            acts = _scored(row)
            if not (acts > 0).any():
                self._left_out(row)
                continue
            window = self.window_of.setdefault(tuple(ids), len(self.window_of))
            if window in held:
                self.account.merged += 1
                before = held[window]
                held[window] = (ids, np.maximum(before[1], acts), before[2] or row.top)
                continue
            held[window] = (ids, acts, row.top)
        top = sheet.maximum or max((float(acts.max()) for _, acts, _ in held.values()), default=0.0)
        # the top examples first, the strongest of them first; then the samples, from the weakest range up
        fifth = {w: int(np.clip(np.ceil(a.max() / top * INTERVALS), 1, INTERVALS)) - 1 for w, (_, a, _) in held.items()}
        order = sorted(held, key=lambda w: (0, -held[w][1].max()) if held[w][2] else (1, fifth[w]))
        for rank, window in enumerate(order):
            _, acts, is_top = held[window]
            places = np.flatnonzero(acts > 0)
            kind, interval = ("top", -1) if is_top else ("interval", fifth[window])
            self.examples.append((sheet.index, rank, kind, interval, window, int(acts.argmax()), places, acts[places]))
        return [(held[w][1], held[w][2]) for w in order]

    def _left_out(self, row: Row) -> None:
        if any(value > 0 for value in row.values):
            self.account.special += 1
        else:
            self.account.silent += 1

    def tables(self, vocabulary_size: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The examples and the windows as `write_cache` takes them."""
        names = ("feature", "rank", "kind", "interval", "window", "peak", "positions", "values")
        examples: dict[str, Any] = {name: [row[at] for row in self.examples] for at, name in enumerate(names)}
        examples["values"] = [rounded(values.astype(np.float32)) for values in examples["values"]]
        examples["value"] = [values.max() for values in examples["values"]]
        texts = list(self.window_of)
        lengths = [len(ids) for ids in texts]
        tokens = np.array([i for ids in texts for i in ids], np.int64)
        vocabulary = self.words.vocabulary()
        special = np.isin(tokens, list(vocabulary.special))
        windows = {
            "tokens": tokens.astype(token_dtype(vocabulary_size)),
            "starts": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            "document": np.arange(len(texts), dtype=np.int32),
            "offset": np.zeros(len(texts), np.int32),
            "scored": (~special).astype(np.uint8),
            "flagged": np.array([flag(vocabulary.text(ids)) for ids in texts], np.uint8),
        }
        return examples, windows


def _scored(row: Row) -> np.ndarray:
    """`[tokens]` float64: activations on the tokens that count; what is not positive is no activation."""
    acts = np.array(row.values, np.float64)
    acts[[is_special(token) for token in row.tokens]] = 0
    return np.maximum(acts, 0)


def _figures(sheet: Sheet, held: list[tuple[np.ndarray, bool]], words: Words) -> dict[str, Any]:
    """A row of features.parquet, without title and context."""
    acts = np.concatenate([a[a > 0] for a, _ in held]) if held else np.zeros(0)
    middles, counts, edges = _bars(sheet)
    top, seen = sheet.maximum or (edges[-1] if counts.any() else 0.0), float(acts.max(initial=0.0))
    if seen > top * (1 + _ROUNDING):  # examples are often rounded, and a hair above the maximum is no new one
        top = seen
    if top and not counts.any():  # no histogram in the file: its examples are all that is known
        counts, edges = np.histogram(acts, HISTOGRAM_BINS, (0, top))
        middles = (edges[1:] + edges[:-1]) / 2
    active = int(counts.sum())
    top = top if active else 0.0
    below, grid = np.concatenate([[0], np.cumsum(counts)]), np.linspace(0, top, HISTOGRAM_BINS + 1)
    bins = np.zeros(HISTOGRAM_BINS, np.int64)
    q = [0.0] * len(QUANTILES)
    if active:
        edges[-1] = top
        reached = np.interp(grid, edges, below)
        reached[-1] = active
        bins = np.diff(np.rint(reached)).astype(np.int64)
        q = np.interp(np.array(QUANTILES) * active, below, edges).tolist()
    mean = float(middles @ counts / active) if active else 0.0
    row: dict[str, Any] = {
        "index": sheet.index, "density": min(max(sheet.density, 0.0), 1.0), "max": top, "mean_active": min(mean, top),
        "tokens_active": active, "documents_active": len(held), "histogram": bins.tolist(),
        "neighbours": [i for i, _ in sheet.neighbours], "neighbours_cosine": [c for _, c in sheet.neighbours],
        "coactive": [], "coactive_jaccard": [],
    }  # fmt: skip
    row |= {f"q{at * 100:.0f}": value for at, value in zip(QUANTILES, q, strict=True)}
    for name, pairs in (("promoted", sheet.promoted), ("suppressed", sheet.suppressed)):
        row[name] = [words.row((token,))[0] for token, _ in pairs]
        row[f"{name}_logits"] = [logit for _, logit in pairs]
    return row


def _bars(sheet: Sheet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Middles, counts and edges of a histogram whose bars have one width; the first bar is taken to begin at 0 or above."""
    middles = np.array([middle for middle, _ in sheet.bars], np.float64)
    counts = np.array([count for _, count in sheet.bars], np.int64)
    if not len(middles):
        return middles, counts, np.zeros(1)
    width = (middles[-1] - middles[0]) / (len(middles) - 1) if len(middles) > 1 else 2 * middles[0]
    edges = np.append(middles - width / 2, middles[-1] + width / 2)
    edges[0] = max(edges[0], 0.0)
    return middles, counts, edges


def _manifest(source: Source, n: int, most_active: int, shelf: _Shelf) -> Manifest:
    longest = max((len(ids) for ids in shelf.window_of), default=0)
    tokens = max(source.prompts * source.prompt_tokens, most_active)
    return Manifest(
        model=source.model, model_fingerprint=name_fingerprint(source.model),
        sae=source.source, sae_fingerprint=name_fingerprint(source.model, source.source),
        architecture=f"not known: imported from {source.program} files", n_features=n, hook_point=source.hook_point,
        dtype="not known", corpus=source.dataset or "not known", corpus_sha256="", documents=source.prompts, windows=source.prompts,
        tokens_seen=tokens, tokens_scored=tokens, tokens_excluded={}, sink_factor=0.0, median_norm=0.0,
        context_size=max(longest, source.prompt_tokens), bos="not known", command="persona-explorer import",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"persona-explorer": version("persona-explorer")},
    )  # fmt: skip


def _labels(source: Source, fingerprint: str, out: Path) -> int:
    """Write the explanations as the labels that came with the cache: the first of a feature is its label, the others stand in the note."""
    of: dict[int, list[Said]] = {}
    for said in source.said:
        if said.text.strip() and said.feature in source.sheets:
            of.setdefault(said.feature, []).append(said)
    path = out / "labels.csv"
    if not of:
        path.unlink(missing_ok=True)  # those of an import that this one replaces
        return 0
    labels = []
    for feature, told in sorted(of.items()):
        text = " ".join(told[0].text.split())
        rest = [text] if len(text) > LIMITS["label"] else []
        rest += [f"Scores there: {told[0].scores}"] if told[0].scores else []
        rest += [" ".join(s.text.split()) + _in_brackets(s.by, s.scores) for s in told[1:]]
        note = "\n".join(rest)[: LIMITS["note"]].replace("\0", "")
        by = f"{source.program}{f': {told[0].by}' if told[0].by else ''}"[: LIMITS["author"]]
        labels.append(Label(fingerprint, feature, text[: LIMITS["label"]].replace("\0", ""), note, None, by))
    return write_file(labels, path, overwrite=True)


def _in_brackets(*parts: str) -> str:
    said = "; ".join(filter(None, parts))
    return f" ({said})" if said else ""


def _record(source: Source, out: Path, account: Account, files: list[Path]) -> None:
    """Keep what was read beside the cache, and what became of it."""
    from dataclasses import asdict

    from explorer.cache import file_entry

    named = [{"name": path.name, **file_entry(path)} for path in files if path.is_file()]
    said = {
        "program": source.program,
        "model": source.model,
        "source": source.source,
        "files": named,
        **asdict(account),
    }
    write_whole(out / RECORD, json.dumps(said, ensure_ascii=False, indent=1) + "\n")
