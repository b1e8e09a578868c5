"""What is blurred and what never enters a corpus."""

import re
from pathlib import Path

import pytest

from explorer import offensive
from explorer.offensive import digest, drop, flag, is_slur, spans


def test_spans_are_the_blurred_words_and_nothing_else():
    text = "You idiot, what a Bl00dy mess! Assess the class of passengers."
    assert [text[a:b] for a, b in spans(text)] == ["idiot", "Bl00dy"]
    assert flag(text)
    assert not flag("Assess the class of passengers.")


@pytest.mark.parametrize("form", ["glorb", "GLORB", "glorbs", "gl0rb", "glorb's"])
def test_a_word_known_by_its_hash_is_dropped_and_blurred_in_its_usual_disguises(
    form: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(offensive, "_SLURS", frozenset({digest("glorb")}))
    assert drop(f"What a {form}!") == (form != "glorb's")
    assert bool(spans(form)) == (form != "glorb's")
    assert not drop("What a glorbify!")


def test_a_text_is_kept_without_such_words_and_is_otherwise_as_it_was(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(offensive, "_SLURS", frozenset({digest("glorb")}))
    assert offensive.redacted("Glorbs, you damn gl0rb! <b>é</b>") == "G*****, you damn g****! <b>é</b>"
    assert not drop(offensive.redacted("What a glorb!"))
    assert offensive.redacted("") == ""


def test_the_words_that_may_not_be_printed_are_kept_as_hashes_only():
    assert len(offensive._SLURS) > 10
    assert all(re.fullmatch("[0-9a-f]{16}", entry) for entry in offensive._SLURS)
    words = re.findall(r"[a-z]+", Path(offensive.__file__).read_text())
    assert not any(digest(word) in offensive._SLURS for word in words)


def test_markup_and_emoji_do_not_disturb_it():
    text = "<b>idiot</b> 🙂 ﬁne"
    assert [text[a:b] for a, b in spans(text)] == ["idiot"]
    assert spans("") == []


def test_spices_are_no_slur():
    """Only what ends in a hiss takes a plural in -es: another word's last letters must not be cut off to make one."""
    assert not is_slur("spices")
    assert not drop("Add a few spices to the rice.")
