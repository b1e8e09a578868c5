"""The Judges page without a browser and without a model: figures, a text, a trait that is taught and forgotten."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import resources, teaching
from explorer.cache import Cache
from explorer.judging import Panel, judges
from explorer.traits import traits
from tests.helpers_app import run_page, words
from tests.helpers_cache import HOSTILE, fake_cache
from tests.helpers_judges import GRIM, MILD, WordEmbedder
from tests.helpers_steer import FakeEngine


class JudgingEngine(FakeEngine):
    """Has judges that need no model."""

    def panel(self) -> Panel:
        self.judging_panel = getattr(self, "judging_panel", None) or Panel(None, WordEmbedder())
        return self.judging_panel


@pytest.fixture
def engine(caches: Path, monkeypatch: pytest.MonkeyPatch):
    made = JudgingEngine(Cache.open(fake_cache(caches / "made-up", 60)))
    monkeypatch.setattr(resources, "engine", lambda name: made)
    return made


def until(app: AppTest, true: Callable[[], object], seconds: float = 30) -> None:
    """Run the page until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, words(app)
        time.sleep(0.05)
        app.run()
        assert not app.exception


def taught(app: AppTest, name: str = "Grim talk") -> AppTest:
    app.text_input(key=teaching.NAME).set_value(name)
    app.text_area(key=teaching.YES).set_value("\n".join(GRIM))
    app.text_area(key=teaching.NO).set_value("\n".join(MILD))
    return app.button(key="teach-go").click().run()


def test_a_taught_trait_has_held_out_figures_at_once_and_is_a_judge_everywhere(engine: JudgingEngine):
    app = taught(run_page("judges"))
    assert not app.exception
    assert traits()["grim-talk"].positive == GRIM
    assert "grim-talk" in judges()
    until(app, lambda: "Grim talk</b>" in words(app) and "not measured yet" not in row(app))
    assert "8, 8" in row(app)


def row(app: AppTest) -> str:
    """The line of the taught trait."""
    return next(part for part in words(app).split("<tr>") if "Grim talk" in part)


def test_a_trait_of_ones_own_can_be_removed(engine: JudgingEngine):
    app = taught(run_page("judges"))
    app.button(key="judges-forget-grim-talk").click().run()
    assert not app.exception
    assert "grim-talk" not in traits()
    assert not any((b.key or "").startswith("judges-forget") for b in app.button)


def test_too_few_sentences_are_named_and_nothing_is_kept(engine: JudgingEngine):
    app = run_page("judges")
    app.text_input(key=teaching.NAME).set_value("Grim")
    app.text_area(key=teaching.YES).set_value("One.\nTwo.")
    app.button(key="teach-go").click().run()
    assert "at least 5" in words(app)
    assert "grim" not in traits()


def test_a_pile_is_labelled_sentence_by_sentence(engine: JudgingEngine):
    app = run_page("judges")
    app.text_area(key=teaching.PILE).set_value("\n".join([GRIM[0], MILD[0], MILD[1]])).run()
    assert "3 left" in words(app)
    app.button(key="teach-key-Y").click().run()
    app.button(key="teach-key-N").click().run()
    app.button(key="teach-key-Skip").click().run()
    assert app.text_area(key=teaching.YES).value == GRIM[0]
    assert app.text_area(key=teaching.NO).value == MILD[0]
    assert "The pile is empty." in words(app)


def test_a_text_is_read_by_every_judge_that_needs_no_endpoint(engine: JudgingEngine):
    app = taught(run_page("judges"))
    app.text_area(key="judges-text").set_value(GRIM[0])
    app.button(key="judges-try").click().run()
    until(
        app,
        lambda: (
            "There is no model" in words(app) or "<td>Repetition</td>" in words(app) or "language model" in words(app)
        ),
    )


def test_hostile_sentences_and_names_are_text(engine: JudgingEngine):
    hostile = [text.decode("utf-8", "replace") for text in HOSTILE]
    app = run_page("judges")
    app.text_area(key=teaching.PILE).set_value("\n".join(hostile)).run()
    app.text_input(key=teaching.NAME).set_value(hostile[0])
    app.button(key="teach-go").click().run()
    assert not app.exception
    assert "<script>" not in words(app)


@pytest.mark.parametrize(("title", "name"), [("Talks of food!", "talks-of-food"), ("  Ünder ", "nder"), ("東京", "")])
def test_a_title_makes_a_name_for_files_and_links(title: str, name: str):
    assert teaching.name_of(title) == name


def test_sentences_are_one_a_line_each_once():
    assert teaching.sentences("A b.\n\n  A   b. \nC.") == ("A b.", "C.")
