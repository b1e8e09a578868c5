import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from explorer.corpus import PART_TOKENS, READERS, chunks, read
from explorer.errors import CorpusError
from explorer.records import Document
from explorer.windows import Windows


class Letters:
    """A stand-in for a model: a token a character, `<` and `>` being special."""

    name = "letters"
    vocabulary = tuple(bytes([b]) for b in range(128))

    def text_document(self, text: str, source: str = "") -> Document:
        return Document(tuple(text.encode("ascii")), ((0, len(text)),), source)

    def chat_document(self, messages: list[dict[str, str]], source: str = "") -> Document:
        text, spans = "", []
        for message in messages:
            text += "<"
            spans.append((len(text), len(text) + len(message["content"])))
            text += message["content"] + ">"
        return Document(tuple(text.encode("ascii")), tuple(spans), source)


ROWS = [
    {"text": "hello"},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
    {"tokens": [60, 104, 105], "content": [[1, 3]], "source": "sampled", "flagged": False},
]
WANTED = [("hello", ((0, 5),)), ("<hi><ho>", ((1, 3), (5, 7))), ("<hi", ((1, 3),))]


def texts(documents: list[Document]) -> list[tuple[str, tuple[tuple[int, int], ...]]]:
    return [(bytes(d.tokens).decode(), d.content) for d in documents]


def test_jsonl_rows_of_every_form_are_read(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in ROWS) + "\n\n")
    documents = list(read(path, Letters()))
    assert texts(documents) == WANTED
    assert [d.source for d in documents] == ["c.jsonl:1", "c.jsonl:2", "sampled"]


def test_parquet_rows_of_every_form_are_read(tmp_path: Path) -> None:
    pq.write_table(
        pa.Table.from_pylist([{**dict.fromkeys(("text", "messages", "tokens", "content")), **r} for r in ROWS]),
        tmp_path / "c.parquet",
    )
    assert texts(list(read(tmp_path / "c.parquet", Letters()))) == WANTED


def test_a_folder_is_read_file_by_file_and_limit_counts_documents(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.txt").write_text(name)
    (tmp_path / "ignored.md").write_text("x")
    assert [t for t, _ in texts(list(read(tmp_path, Letters())))] == ["a", "b", "c"]
    assert len(list(read(tmp_path, Letters(), limit=2))) == 2


@pytest.mark.parametrize("suffix", [s for s in READERS if s != ".txt"])
def test_a_damaged_file_is_an_error_in_words(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"c{suffix}"
    path.write_bytes(b"\x00\xff{not")
    with pytest.raises(CorpusError, match="cannot be read"):
        list(read(path, Letters()))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "x"}', "c.jsonl:1 holds prompt. expected one of tokens, messages, text"),
        ('["x"]', "c.jsonl:1 holds list"),
        ('{"text": 3}', "c.jsonl:1 has text of an unknown form"),
        ('{"messages": [{"role": "user"}]}', "c.jsonl:1 has messages of an unknown form"),
        ('{"tokens": [500]}', "c.jsonl:1 holds token 500. expected ids of letters, 0 to 127"),
    ],
)
def test_a_row_of_no_known_form_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "c.jsonl").write_text(line)
    with pytest.raises(CorpusError, match=message):
        list(read(tmp_path / "c.jsonl", Letters()))


@pytest.mark.parametrize("name", ["missing.jsonl", "/missing/folder", "file.md"])
def test_a_corpus_that_is_not_there_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "file.md").write_text("x")
    source = tmp_path / name if name == "file.md" else Path(name)
    with pytest.raises(CorpusError):
        list(read(source, Letters()))


def documents(*lengths: int) -> list[Document]:
    return [Document(tuple(range(n)), ((0, n),), "") for n in lengths]


def test_windows_hold_every_token_once_and_never_mix_documents() -> None:
    lengths = (3, 250, 128, 1, 129)
    table = Windows.join(list(chunks(documents(*lengths), frozenset(), context_size=128, windows=2)))
    assert table.starts[-1] == sum(lengths)
    assert table.lengths.max() <= 128
    np.testing.assert_array_equal(table.index, np.arange(len(table)))
    for row in range(len(table)):
        tokens = table.tokens[table.starts[row] : table.starts[row + 1]]
        np.testing.assert_array_equal(tokens, np.arange(len(tokens)) + table.offset[row])
    assert np.bincount(np.repeat(table.document, table.lengths)).tolist() == list(lengths)


def test_a_document_never_lies_in_two_chunks_and_a_long_one_counts_as_several() -> None:
    parts = list(chunks(documents(100, 3 * PART_TOKENS + 5, 7), frozenset(), context_size=64, windows=3))
    seen: set[int] = set()
    for part in parts:
        assert not seen & set(part.document.tolist())
        seen |= set(part.document.tolist())
    assert seen == set(range(1 + 4 + 1))


def test_first_special_and_template_tokens_are_no_evidence() -> None:
    document = Document((9, 1, 9, 9, 1, 9, 9, 9), ((0, 3), (5, 8)), "")
    (table,) = chunks([document], frozenset({1}), context_size=6)
    # first, special, scored, template, special, scored; the second window's first token, scored
    assert table.evidence.tolist() == [1, 2, 0, 3, 2, 0, 1, 0]


def test_batches_hold_every_window_once_within_the_budget() -> None:
    table = Windows.join(list(chunks(documents(5, 300, 90, 17, 64), frozenset(), context_size=100)))
    batches = list(table.batches(200))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(table)))
    for rows in batches:
        ids, place = table.padded(rows)
        assert ids.size <= 200
        np.testing.assert_array_equal(ids[place >= 0], table.tokens[place[place >= 0]])
        assert np.all((place >= 0).sum(1) == table.lengths[rows])
        assert np.all(ids[place < 0] == 0)


def test_take_gives_the_rows_asked_for() -> None:
    table = Windows.join(list(chunks(documents(5, 300, 90), frozenset(), context_size=100)))
    taken = table.take(np.array([4, 0, 0]))
    assert taken.index.tolist() == [4, 0, 0]
    assert taken.lengths.tolist() == [90, 5, 5]
    assert taken.tokens.tolist() == [*range(90), *range(5), *range(5)]
