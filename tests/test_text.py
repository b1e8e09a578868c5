"""Tokens to text: nothing lost, nothing split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.errors import CacheError
from explorer.text import Vocabulary, byte_alphabet, token_bytes

BYTES = Vocabulary([bytes([i]) for i in range(256)] + [b"<|end|>"], {256})


def test_a_character_that_spans_tokens_is_one_unit():
    ids = list("a🙂b".encode())
    units = BYTES.units(ids, [1, 0, 5, 0, 0, 2])
    assert [u.text for u in units] == ["a", "🙂", "b"]
    assert units[1].value == 5
    assert units[1].parts == (("F0", 0.0), ("9F", 5.0), ("99", 0.0), ("82", 0.0))
    assert units[0].parts == ()


@given(st.lists(st.integers(0, 256)))
def test_units_cover_every_token_once_and_their_texts_join_to_the_text(ids: list[int]):
    units = BYTES.units(ids)
    assert [i for u in units for i in range(u.start, u.stop)] == list(range(len(ids)))
    if 256 not in ids:
        whole = bytes(ids).decode(errors="replace")
        assert "".join(u.text for u in units).replace("�", "") == whole.replace("�", "")


def test_a_special_token_is_its_own_unit_even_inside_a_character():
    units = BYTES.units([0xF0, 256, 0x9F])
    assert [(u.start, u.stop, u.special) for u in units] == [(0, 1, False), (1, 2, True), (2, 3, False)]


@given(st.text())
def test_a_streamer_gives_only_whole_characters_and_all_of_them(text: str):
    streamer = BYTES.streamer()
    pieces = [streamer.push(b) for b in text.encode()]
    assert "".join(pieces) + streamer.flush() == text
    assert "�" in text or not any("�" in piece for piece in pieces)


def test_a_streamer_shows_an_unfinished_character_as_a_replacement_at_the_end():
    streamer = BYTES.streamer()
    assert streamer.push(0xF0) == ""
    assert streamer.flush() == "�"


def test_pieces_show_line_breaks_and_broken_bytes():
    assert BYTES.piece(ord("\n")) == "↵"
    assert BYTES.piece(0xF0) == "<F0>"
    assert BYTES.piece(0) == "\\u0000"
    assert BYTES.piece(ord("<")) == "<"


def test_the_byte_alphabet_covers_every_byte_once():
    assert sorted(byte_alphabet().values()) == list(range(256))


def test_token_bytes_reads_both_spellings():
    assert token_bytes("Ġthe", byte_level=True) == b" the"
    assert token_bytes("▁the", byte_level=False) == b" the"
    assert token_bytes("<0x0A>", byte_level=False) == b"\n"
    assert token_bytes("<0xZZ>", byte_level=False) == b"<0xZZ>"


def test_a_vocabulary_survives_saving(tmp_path):
    BYTES.save(tmp_path / "tokens.parquet")
    loaded = Vocabulary.load(tmp_path / "tokens.parquet")
    assert loaded.bytes_of == BYTES.bytes_of
    assert loaded.special == BYTES.special


def test_a_file_that_is_no_vocabulary_is_refused_in_words(tmp_path):
    (tmp_path / "tokens.parquet").write_bytes(b"nonsense")
    with pytest.raises(CacheError, match="cannot be read as a vocabulary"):
        Vocabulary.load(tmp_path / "tokens.parquet")
