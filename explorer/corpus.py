"""Corpora: files and data sets to documents, documents to token windows.

A row of a corpus holds `text`, `messages` (OpenAI's chat format), or `tokens` with `content` spans, which is what
`explorer.sampling` writes. Nothing is put in front of a document that the tokenizer does not put there itself.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from explorer.errors import CorpusError
from explorer.evidence import judge_text
from explorer.records import Document
from explorer.windows import Windows

if TYPE_CHECKING:
    from explorer.model import LanguageModel

PART_TOKENS = 2048
"""A document longer than this counts as several, so that the examples out of a book are not one."""


def read(source: str | Path, model: "LanguageModel", *, limit: int | None = None) -> Iterator[Document]:
    """The documents of a corpus.

    Args:
        source: A file (.txt, .jsonl, .parquet), a folder of such files, or the name of a Hugging Face data set.
        model: Whose tokenizer and chat template read it.
        limit: Stop after this many documents.
    Raises:
        CorpusError: If there is no such corpus, or a row is none of the known forms.
    """
    return islice(_documents(source, model), limit)


def _documents(source: str | Path, model: "LanguageModel") -> Iterator[Document]:
    for where, row in _rows(source):
        document = _document(where, row, model)
        if document.tokens:
            yield document


def _rows(source: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    path = Path(source)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in READERS)
        if not files:
            raise CorpusError(f"There is no corpus in {path}", expected=f"files ending in {', '.join(READERS)}")
        for file in files:
            yield from _rows(file)
    elif path.is_file():
        if path.suffix not in READERS:
            raise CorpusError(f"{path} ends in {path.suffix or 'nothing'}", expected=f"one of {', '.join(READERS)}")
        try:
            for number, row in enumerate(READERS[path.suffix](path), start=1):
                yield f"{path.name}:{number}", row
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise CorpusError(f"{path} cannot be read ({str(error).splitlines()[0]})") from error
    elif path.suffix in READERS or path.is_absolute():
        raise CorpusError(f"There is no file {path}", expected="a corpus file, a folder, or a data set's name")
    else:
        for number, row in enumerate(_read_hub(str(source)), start=1):
            yield f"{source}:{number}", row


def _read_text(path: Path) -> Iterator[dict[str, Any]]:
    yield {"text": path.read_text(encoding="utf-8")}


def _read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ValueError(f"line {number} is no JSON: {error}") from error


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(1024):
            yield from batch.to_pylist()


READERS: dict[str, Callable[[Path], Iterator[dict[str, Any]]]] = {
    ".txt": _read_text,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def _read_hub(name: str) -> Iterator[dict[str, Any]]:
    """Rows of a Hugging Face data set, streamed: its train split, or the first it has."""
    from datasets import load_dataset

    try:
        splits = load_dataset(name, streaming=True)
        split = "train" if "train" in splits else next(iter(splits))
        yield from splits[split]
    except Exception as error:  # the hub's client raises what each layer below it raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CorpusError(
            f"{name} is no file here, and no data set that can be loaded ({reason})",
            expected="a .txt, .jsonl or .parquet file, or the name of a Hugging Face data set",
            do="Check the path or the name",
        ) from error


def _document(where: str, row: Any, model: "LanguageModel") -> Document:
    form = next((key for key in FORMS if isinstance(row, dict) and row.get(key) is not None), None)
    if form is None:
        keys = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise CorpusError(f"{where} holds {keys or 'nothing'}", expected=f"one of {', '.join(FORMS)}")
    try:
        return FORMS[form](row, model, where)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise CorpusError(f"{where} has {form} of an unknown form ({type(error).__name__}: {error})") from error


def _from_tokens(row: dict[str, Any], model: "LanguageModel", where: str) -> Document:
    tokens = tuple(int(t) for t in row["tokens"])
    if tokens and not 0 <= min(tokens) <= max(tokens) < len(model.vocabulary):
        raise CorpusError(
            f"{where} holds token {max(tokens, key=abs)}",
            expected=f"ids of {model.name}, 0 to {len(model.vocabulary) - 1}",
            do="Read the corpus with the model that it was sampled from",
        )
    spans = row.get("content")
    content = ((0, len(tokens)),) if spans is None else tuple((int(a), int(b)) for a, b in spans)
    return Document(tokens, content, row.get("source") or where)


FORMS: dict[str, Callable[[dict[str, Any], "LanguageModel", str], Document]] = {
    "tokens": _from_tokens,
    "messages": lambda row, model, where: model.chat_document(row["messages"], source=where),
    "text": lambda row, model, where: model.text_document(row["text"], source=where),
    "chosen": lambda row, model, where: model.text_document(
        row["chosen"].strip(), source=where
    ),  # a preferred transcript
}


def write(documents: Iterable[Document], path: Path) -> None:
    """Write documents as a .parquet file of `tokens`, `content` and `source`, which `read` reads; whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(documents)
    ids = pa.uint16() if max((max(d.tokens, default=0) for d in rows), default=0) < 1 << 16 else pa.int32()
    table = pa.table(
        {
            "tokens": pa.array([list(d.tokens) for d in rows], pa.list_(ids)),
            "content": pa.array([[list(span) for span in d.content] for d in rows], pa.list_(pa.list_(pa.int32()))),
            "source": pa.array([d.source for d in rows], pa.string()),
        }
    )
    partial = path.with_name(f"{path.name}.partial")
    pq.write_table(table, partial, compression="zstd", compression_level=15)
    partial.replace(path)


def chunks(
    documents: Iterable[Document],
    special: frozenset[int],
    *,
    context_size: int = 128,
    windows: int = 512,
) -> Iterator[Windows]:
    """Cut documents into windows, some whole documents at a time.

    Windows never mix documents, and a document never lies in two chunks; one longer than `PART_TOKENS` counts as several.

    Args:
        documents: In the order of the corpus.
        special: The model's special tokens.
        context_size: Longest window, in tokens.
        windows: A chunk ends with the document that brings it to this many.
    """
    cuts: list[_Cut] = []
    first = 0
    for number, part in enumerate(_parts(documents, context_size)):
        cuts += [_Cut(number, *cut) for cut in part]
        if len(cuts) >= windows:
            yield _table(cuts, first, special)
            first += len(cuts)
            cuts = []
    if cuts:
        yield _table(cuts, first, special)


class _Cut(NamedTuple):
    document: int
    offset: int
    tokens: np.ndarray
    content: np.ndarray


def _parts(documents: Iterable[Document], context_size: int) -> Iterator[list[tuple[int, np.ndarray, np.ndarray]]]:
    """Documents, cut into windows (offset, tokens, content); a long one comes as several."""
    size = max(1, PART_TOKENS // context_size)
    for document in documents:
        tokens = np.asarray(document.tokens, np.int32)
        content = np.zeros(len(tokens), bool)
        for start, stop in document.content:
            content[start:stop] = True
        cuts = [
            (at, tokens[at : at + context_size], content[at : at + context_size])
            for at in range(0, len(tokens), context_size)
        ]
        for at in range(0, len(cuts), size):
            yield cuts[at : at + size]


def _table(cuts: list[_Cut], first: int, special: frozenset[int]) -> Windows:
    numbers, offsets, tokens, content = zip(*cuts, strict=True)
    starts = np.concatenate([[0], np.cumsum([len(t) for t in tokens])]).astype(np.int64)
    flat = np.concatenate(tokens)
    return Windows(
        index=np.arange(first, first + len(cuts), dtype=np.int64),
        document=np.array(numbers, np.int32),
        offset=np.array(offsets, np.int32),
        starts=starts,
        tokens=flat,
        evidence=judge_text(flat, np.concatenate(content), starts, special),
    )
