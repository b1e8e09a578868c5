"""What Steer is set to, and the link that holds it."""

from pathlib import Path

import pytest

from app import settings
from app.settings import Settings, Slider
from explorer import causing
from explorer.cache import Cache
from explorer.records import Edit, Sampling
from tests.helpers_cache import fake_cache
from tests.helpers_steer import FULL


@pytest.fixture
def cache(caches: Path) -> Cache:
    """One made-up cache and nothing else."""
    return Cache.open(fake_cache(caches / "made-up", 60))


def test_a_link_holds_every_setting(cache: Cache):
    query = settings.write(FULL)
    assert query["edits"] == "17:1.5:add,8:-1:add:off,9:2:clamp,4:1:ablate"
    assert settings.read(query, cache) == (FULL, [])


def test_what_is_as_always_is_not_in_the_link(cache: Cache):
    assert settings.write(Settings()) == {"edits": "none"}
    assert settings.read({"edits": "none"}, cache) == (Settings(), [])


@pytest.mark.parametrize(
    ("edits", "left"),
    [
        ("drop table", []),
        ("1:nan:add,2:inf,3:1:add", [3]),
        ("1:1:fly,-4,60,5", [5]),
        ("7,7:2:add,8", [7, 8]),
        ("1:1:add:off:x,2:1:add:maybe,3::add,4", [4]),
        ("1:off,2:1:off,3:1:add:,4:1:add:off", [4]),
        (",".join(map(str, range(20))), list(range(16))),
        ("99999999999999999999", []),
    ],
)
def test_nonsense_in_a_link_is_named_and_left_out(cache: Cache, edits: str, left: list[int]):
    read, bad = settings.read({"edits": edits}, cache)
    assert [s.edit.feature for s in read.sliders] == left
    assert bad


def test_a_joint_undo_has_room_on_the_page():
    assert settings.MOST_SLIDERS >= causing.MOST


def test_strengths_are_kept_on_their_sliders(cache: Cache):
    read, _ = settings.read({"edits": "1:99,2:-99,3:-2:clamp,4:7:ablate,5:-0"}, cache)
    assert [s.edit.strength for s in read.sliders] == [3, -3, 0, 1, 0]
    assert settings.write(read)["edits"] == "1:3:add,2:-3:add,3:0:clamp,4:1:ablate,5:0:add"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("seed", "-1"),
        ("seed", "x"),
        ("temperature", "nan"),
        ("top_p", "2"),
        ("max_tokens", "1e99"),
        ("positions", "up"),
    ],
)
def test_numbers_out_of_bounds_are_as_always(cache: Cache, name: str, text: str):
    read, bad = settings.read({"edits": "1", name: text}, cache)
    assert (read.sampling, read.positions) == (Sampling(), "answer")
    assert name in bad[0]


def test_a_strength_preset_moves_the_strongest_and_the_others_in_proportion():
    sliders = (
        Slider(Edit(1, 2.0)),
        Slider(Edit(2, -1.0)),
        Slider(Edit(3, 3.0), on=False),
        Slider(Edit(4, 1, "ablate")),
    )
    assert [s.edit.strength for s in Settings(sliders).scaled(1.0).sliders] == [1.0, -0.5, 3.0, 1]
    assert [s.edit.strength for s in Settings(sliders).scaled(-1.0).sliders] == [-1.0, 0.5, 3.0, 1]
    assert Settings((Slider(Edit(1, 0.0)),)).scaled(1.5).edits == (Edit(1, 1.5),)


def test_a_direction_stands_in_a_link_beside_features(cache: Cache):
    both = Settings((Slider(Edit(direction="grim", strength=-1.5)), Slider(Edit(3, 1, "ablate"))))
    query = settings.write(both)
    assert query["edits"] == "~grim:-1.5:add,3:1:ablate"
    assert settings.read(query, cache, directions=["grim"]) == (both, [])
    read, bad = settings.read(query, cache)
    assert read.edits == (Edit(3, 1, "ablate"),)
    assert bad == ["direction ~grim (there is none of that name here)"]


def test_the_link_says_which_history_whether_controls_come_along_and_whether_text_is_plain(cache: Cache):
    both = Settings(shared=True, controls=True, plain=True)
    assert settings.write(both) == {"edits": "none", "history": "shared", "controls": "1", "plain": "1"}
    assert settings.read(settings.write(both), cache) == (both, [])
