"""The Label page and its queues, without a browser and without a model."""

import time
from pathlib import Path

import pytest

from app import label_form, queues
from explorer.cache import Cache
from explorer.errors import LabelError
from explorer.labels import NOT_INTERPRETABLE, LabelStore
from tests.helpers_app import run_page, words
from tests.helpers_cache import HOSTILE, fake_cache

SAE = "s" * 64
DENSITY = [0.1, 0.3, 0.0, 0.2, 0.3]


@pytest.fixture
def world(caches: Path, monkeypatch: pytest.MonkeyPatch):
    """A home and a folder of caches of our own; gives the folder."""
    monkeypatch.setattr(label_form, "machine_user", lambda: "me")
    return caches


@pytest.fixture
def cache(world: Path) -> Cache:
    return Cache.open(fake_cache(world / "made-up", 60, dead=(5, 7)))


@pytest.fixture
def store(cache: Cache, tmp_path: Path) -> LabelStore:
    return LabelStore(tmp_path / "home" / "labels.sqlite")


def key(feature: int, box: str = "text") -> str:
    return f"label-{box}-{SAE[:12]}-{feature}"


def feature_in_view(app) -> int:
    boxes = [b.key for b in app.text_input if (b.key or "").startswith("label-text-")]
    return int(boxes[0].rpartition("-")[2]) if boxes else -1


def box(app, feature: int):
    return app.text_input(key=key(feature))


# Queues


def test_the_density_queue_starts_with_what_fires_most_and_leaves_dead_features_out():
    assert queues.queue("density", DENSITY).features == (1, 4, 3, 0)


def test_the_unlabelled_queue_leaves_labelled_features_out():
    assert queues.queue("unlabelled", DENSITY, {4, 0}).features == (1, 3)


def test_a_random_queue_is_the_same_for_the_same_seed_and_holds_the_same_features():
    first = queues.queue("random", [0.1] * 100, seed=3)
    assert first == queues.queue("random", [0.1] * 100, seed=3)
    assert first.features != queues.queue("random", [0.1] * 100, seed=4).features
    assert sorted(queues.queue("random", DENSITY).features) == [0, 1, 3, 4]


def test_a_queue_says_how_many_found_no_room():
    line = queues.queue("density", DENSITY, size=3)
    assert (line.features, line.more) == ((1, 4, 3), 1)
    assert queues.queue("density", DENSITY, size=0).more == 0


def test_one_steps_through_a_queue_from_end_to_end():
    line = queues.queue("density", DENSITY)
    assert [line.after(f) for f in (1, 4, 3, 0)] == [4, 3, 0, None]
    assert [line.before(f) for f in (1, 4, 3, 0)] == [None, 1, 4, 3]
    assert [line.place(f) for f in (1, 2, 0)] == [0, None, 3]


def test_a_feature_outside_the_queue_has_neighbours_in_it():
    line = queues.queue("unlabelled", DENSITY, {4, 3})
    assert (line.before(4), line.after(4)) == (1, 0)
    assert (line.before(2), line.after(2)) == (0, None)


def test_what_others_have_labelled_meanwhile_is_passed_over():
    line = queues.queue("unlabelled", DENSITY)
    assert line.after(1, {4, 3}) == 0
    assert (line.first({1}), line.first({0, 1, 3, 4})) == (4, 1)


def test_a_queue_of_nothing_is_empty():
    line = queues.queue("unlabelled", [0.0, 0.1], {1})
    assert (len(line), line.first(), line.after(0), line.before(0)) == (0, None, None, None)


# The page


def test_the_page_begins_with_the_first_feature_without_a_label(cache: Cache, store: LabelStore):
    store.put(SAE, 0, "known", author="me")
    store.put(SAE, 1, "known", author="me")
    app = run_page("label")
    assert not app.exception
    assert feature_in_view(app) == 2  # the made-up cache is sorted by density
    assert "<b>3</b> of 50 · 2 labelled" in words(app)


def test_queue_size_seed_and_feature_are_in_the_link(cache: Cache):
    app = run_page("label", queue="random", size="200", seed="3", feature="9")
    assert feature_in_view(app) == 9
    assert app.session_state["label-queue-choice"] == "random"
    place = queues.queue("random", cache.frame["density"].tolist(), size=200, seed=3).place(9)
    assert place is not None
    assert f"<b>{place + 1}</b> of 58" in words(app)


def test_nonsense_in_the_link_is_the_default(cache: Cache):
    app = run_page("label", queue="drop table", size="-1", seed="x", feature="999999")
    assert not app.exception
    assert app.session_state["label-queue-choice"] == "density"
    assert feature_in_view(app) == 59


def test_another_queue_is_chosen_and_starts_afresh(cache: Cache, store: LabelStore):
    store.put(SAE, 0, "known", author="me")
    app = run_page("label", feature="9")
    app.segmented_control(key="label-queue-choice").set_value("unlabelled").run()
    assert app.query_params["queue"] == "unlabelled"
    assert "feature" not in app.query_params
    assert feature_in_view(app) == 1


def test_save_and_next_saves_everything_and_goes_on(cache: Cache, store: LabelStore):
    app = run_page("label")
    box(app, 0).set_value("royalty")
    app.segmented_control(key=key(0, "sure")).set_value(2)
    app.text_area(key=key(0, "note")).set_value("mostly kings")
    app.button(key="label-next").click().run()
    assert not app.exception
    saved = store.get(SAE, 0)
    assert saved is not None
    assert (saved.label, saved.confidence, saved.note, saved.author) == ("royalty", 2, "mostly kings", "me")
    assert feature_in_view(app) == 1
    assert app.query_params["feature"] == "1"
    assert "<b>2</b> of 50 · 1 labelled · saved <b>" in words(app)


def test_a_box_that_is_left_is_saved_and_the_page_stays(cache: Cache, store: LabelStore):
    app = run_page("label")
    box(app, 0).set_value("royalty").run()
    saved = store.get(SAE, 0)
    assert saved is not None
    assert saved.label == "royalty"
    assert feature_in_view(app) == 0


def test_next_and_previous_step_without_saving_anything(cache: Cache, store: LabelStore):
    app = run_page("label")
    app.button(key="label-j").click().run()
    assert feature_in_view(app) == 1
    app.button(key="label-k").click().run()
    assert feature_in_view(app) == 0
    assert app.button(key="label-k").disabled
    assert store.changes(SAE) == []


def test_not_interpretable_is_one_key(cache: Cache, store: LabelStore):
    app = run_page("label")
    app.button(key="label-n").click().run()
    saved = store.get(SAE, 0)
    assert saved is not None
    assert saved.label == NOT_INTERPRETABLE
    assert feature_in_view(app) == 1


def test_undo_takes_the_last_save_back_and_shows_it(cache: Cache, store: LabelStore):
    app = run_page("label")
    box(app, 0).set_value("royalty")
    app.button(key="label-next").click().run()
    box(app, 1).set_value("cruelty")
    app.button(key="label-next").click().run()
    app.button(key="label-u").click().run()
    assert feature_in_view(app) == 1
    assert box(app, 1).value == ""
    assert store.all(SAE).keys() == {0}
    app.button(key="label-u").click().run()
    assert feature_in_view(app) == 0
    assert store.all(SAE) == {}
    assert app.button(key="label-u").disabled  # nothing left


def test_undo_leaves_alone_what_somebody_else_said_since(cache: Cache, store: LabelStore):
    app = run_page("label")
    box(app, 0).set_value("royalty")
    app.button(key="label-next").click().run()
    store.put(SAE, 0, "crowns", author="kim")
    app.button(key="label-u").click().run()
    saved = store.get(SAE, 0)
    assert saved is not None
    assert saved.label == "crowns"
    assert "kim changed #0 after you" in words(app)


def test_labels_of_others_stay_hidden_until_one_has_saved(cache: Cache, store: LabelStore):
    store.put(SAE, 0, "secret words", author="kim")
    app = run_page("label", feature="0")
    assert box(app, 0).value == ""
    assert "secret words" not in words(app)
    box(app, 0).set_value("my own").run()
    assert "<b>secret words</b>" in words(app)
    assert box(app, 0).value == "my own"


def test_labels_of_others_are_shown_when_asked_for(cache: Cache, store: LabelStore):
    store.put(SAE, 0, "secret words", author="kim")
    app = run_page("label", feature="0")
    app.button(key=f"label-reveal-{SAE[:12]}-0-button").click().run()
    assert "<b>secret words</b>" in words(app)
    assert box(app, 0).value == ""


def test_a_bundled_label_is_in_view(cache: Cache):
    (cache.path / "labels.csv").write_text(
        f"sae,feature,label,note,confidence,author,created_at\n{SAE},0,from the cache,,,,\n"
    )
    app = run_page("label", feature="0")
    assert box(app, 0).value == "from the cache"


def test_two_people_at_once_are_both_shown_and_one_chooses(cache: Cache, store: LabelStore):
    app = run_page("label")
    store.put(SAE, 0, "crowns", author="kim")  # while this page is open
    box(app, 0).set_value("royalty")
    app.button(key="label-next").click().run()
    assert feature_in_view(app) == 0
    assert "kim saved “crowns”" in words(app)
    assert box(app, 0).value == "royalty"
    app.button(key=key(0, "take")).click().run()
    saved = store.get(SAE, 0)
    assert saved is not None
    assert (saved.label, saved.author) == ("crowns", "me")
    assert len(store.history(SAE, 0)) == 3


def test_ones_own_words_from_another_tab_are_a_conflict_too_and_the_same_words_are_none(
    cache: Cache, store: LabelStore
):
    app = run_page("label", feature="0")
    store.put(SAE, 0, "royalty", author="kim")  # the same
    box(app, 0).set_value("royalty").run()
    assert "while you were writing" not in words(app)
    store.put(SAE, 0, "crowns", author="me")
    box(app, 0).set_value("thrones").run()
    assert "me saved “crowns”" in words(app)


def test_a_conflict_that_has_been_in_view_stops_nobody(cache: Cache, store: LabelStore, monkeypatch):
    app = run_page("label", feature="0")
    store.put(SAE, 0, "crowns", author="kim")
    box(app, 0).set_value("royalty").run()
    assert "kim saved “crowns”" in words(app)
    now = time.monotonic()
    monkeypatch.setattr(label_form.time, "monotonic", lambda: now + 60)
    app.button(key="label-next").click().run()
    assert feature_in_view(app) == 1


def test_what_could_not_be_saved_is_there_again_after_a_step_on_feature(
    cache: Cache, store: LabelStore, monkeypatch: pytest.MonkeyPatch
):
    def full(*args, **more):
        raise LabelError("The disk is full")

    text = f"feature-text-{SAE[:12]}-0"
    app = run_page("feature", feature="0")
    with monkeypatch.context() as patch:
        patch.setattr(LabelStore, "lay", full)
        app.text_input(key=text).set_value("royalty").run()
        assert "The disk is full" in words(app)
        app.button(key="next").click().run()
        app.button(key="previous").click().run()
    assert app.text_input(key=text).value == "royalty"
    app.text_input(key=text).set_value("").run()  # as it is in the store: nothing is left to save
    assert "The disk is full" not in words(app)


def test_a_broken_database_is_said_in_three_parts_and_nothing_typed_is_lost(
    cache: Cache, store: LabelStore, tmp_path: Path
):
    store.put(SAE, 3, "before", author="me")
    store.close()
    app = run_page("label", feature="0")
    file = tmp_path / "home" / "labels.sqlite"
    for rest in file.parent.glob("labels.sqlite-*"):
        rest.unlink()
    sound = file.read_bytes()
    file.write_bytes(b"no database at all " * 500)
    box(app, 0).set_value("royalty")
    app.button(key="label-next").click().run()
    assert not app.exception
    assert "is not a sound SQLite database" in words(app)
    assert "Restore a backup" in words(app)
    assert "Traceback" not in words(app)
    assert feature_in_view(app) == 0  # not gone on
    assert box(app, 0).value == "royalty"
    app.button(key="label-j").click().run()
    assert box(app, 0).value == "royalty"
    file.write_bytes(sound)
    app.button(key=key(0, "again")).click().run()
    assert "is not a sound" not in words(app)
    saved = LabelStore(file).get(SAE, 0)
    assert saved is not None
    assert saved.label == "royalty"


def test_the_end_of_the_queue_says_how_many_and_what_next(cache: Cache, store: LabelStore):
    app = run_page("label", feature="51")
    app.button(key="label-n").click().run()
    assert app.query_params["at"] == "end"
    assert "End of the queue" in words(app)
    assert "1 of its 50 features is labelled" in words(app)
    app.button(key="label-more").click().run()
    assert app.query_params["queue"] == "unlabelled"
    assert feature_in_view(app) == 0


def test_the_end_has_a_link_and_a_way_back(cache: Cache):
    app = run_page("label", at="end")
    assert "End of the queue" in words(app)
    app.button(key="label-k").click().run()
    assert feature_in_view(app) == 51  # the last of fifty, two of those before it being dead


def test_a_cache_that_is_labelled_throughout_leaves_nothing_to_do(cache: Cache, store: LabelStore):
    for feature in range(60):
        store.put(SAE, feature, "named", author="me")
    app = run_page("label", queue="unlabelled")
    assert not app.exception
    assert "Nothing left in this queue" in words(app)
    assert "Every feature that fires has a label" in words(app)
    assert "persona-explorer labels export labels.csv" in app.code[0].value


def test_a_dead_feature_says_that_there_is_nothing_to_go_by(cache: Cache):
    app = run_page("label", feature="5")
    assert not app.exception
    assert "No window in this corpus activates this feature" in words(app)


@pytest.mark.parametrize("text", [h.decode() for h in HOSTILE if b"\0" not in h])
def test_hostile_labels_are_text(cache: Cache, store: LabelStore, text: str):
    store.put(SAE, 0, text, text, author=text)
    app = run_page("label", feature="0")
    app.button(key=f"label-reveal-{SAE[:12]}-0-button").click().run()
    assert not app.exception
    assert "<script>" not in words(app)
    assert "<img" not in words(app)


def test_a_nul_in_a_label_is_refused_in_words(cache: Cache, store: LabelStore):
    app = run_page("label", feature="0")
    box(app, 0).set_value("a\0b").run()
    assert not app.exception
    assert "holds a NUL character" in words(app)
    assert store.get(SAE, 0) is None
