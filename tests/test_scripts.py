"""Scripts of presentations: what a file says, what is wrong with it, and the answers recorded for it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from explorer import scripts
from explorer.cache import Cache
from explorer.cli import main as command
from explorer.errors import ScriptError
from explorer.records import Edit
from tests.helpers_cache import fake_cache

PRESETS = """
[[preset]]
name = "regal"
edits = [{ feature = 3, strength = 0.6 }, { feature = 4, strength = 0.3 }]
"""
HEAD = 'title = "A talk"\n\n'
STEER = HEAD + '[[step]]\nkind = "steer"\ntitle = "Up"\nprompt = "Who are you?"\n'


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path / "home"))
    folder = fake_cache(tmp_path / "made-up", 16)
    (folder / "presets.toml").write_text(PRESETS)
    return Cache.open(folder)


def script(cache: Cache, text: str) -> scripts.Script:
    path = cache.path / scripts.FOLDER / "script.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return scripts.load(path, cache)


def test_a_step_takes_its_edits_and_their_place_from_a_preset(cache: Cache):
    (step,) = script(cache, STEER + 'preset = "regal"\nseed = 4\nstrengths = [0.3, 1.2, -0.6]\n').steps
    assert step.edits == (Edit(3, 0.6), Edit(4, 0.3))
    assert step.stops == 3
    assert [e.strength for e in step.at(1)] == pytest.approx([1.2, 0.6])
    assert [e.strength for e in step.at(2)] == pytest.approx([-0.6, -0.3])
    assert (step.sampling.seed, step.positions, step.line) == (4, "answer", 3)


def test_edits_are_spelled_as_links_spell_them(cache: Cache):
    (step,) = script(cache, STEER + 'edits = ["3", "4:0.5", "5:1:ablate", "~villain:-1"]\n').steps
    assert step.edits == (Edit(3), Edit(4, 0.5), Edit(5, 1.0, "ablate"), Edit(-1, -1.0, "add", "villain"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = ]", "line 1"),
        (HEAD, "holds no steps"),
        (HEAD + '[[step]]\nkind = "movie"\ntitle = "x"', r"Step 1 \(line 3\).*kind 'movie'.*text, feature, steer, question"),
        (HEAD + '[[step]]\nkind = "text"\nwords = "x"', "a text step without title"),
        (HEAD + '[[step]]\nkind = "text"\ntitle = "x"', "a text step without words"),
        (HEAD + '[[step]]\nkind = "feature"\ntitle = "x"\nfeature = 16', "feature = 16.*expected 0 to 15"),
        (HEAD + '[[step]]\nkind = "feature"\ntitle = "x"\nfeature = "3"', "feature = '3'.*expected int"),
        (HEAD + '[[step]]\nkind = "feature"\ntitle = "x"\nfeature = true', "feature = True"),
        (STEER, "steers nothing"),
        (STEER + 'preset = "grim"', "preset 'grim'.*expected one of regal"),
        (STEER + 'edits = ["99"]', "edit '99'.*features 0 to 15"),
        (STEER + 'edits = ["3:1:shout"]', "edit '3:1:shout'.*the mode one of"),
        (STEER + 'edits = ["3:nan"]', "edit '3:nan'"),
        (STEER + 'edits = ["3"]\nstrengths = ["much"]', "strengths"),
        (STEER + 'edits = ["3"]\ncontrol = "ghost"', "control 'ghost'.*random"),
        (STEER + 'edits = ["3"]\npositions = "moon"', "positions 'moon'"),
        (STEER + 'edits = ["3"]\nmax_tokens = 4000', "max_tokens = 4000.*1 to 400"),
        (STEER + 'edits = ["3"]\nvolume = 3', "'volume' in a steer step"),
        (
            HEAD + '[[step]]\nkind = "text"\ntitle = "a"\nwords = "b"\n\n[[ step ]]\nkind = "question"\ntitle = 3',
            r"Step 2 \(line 8\)",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_named_with_its_step_its_line_and_what_was_expected(cache: Cache, text: str, said: str):
    with pytest.raises(ScriptError, match=said):
        script(cache, text)


def test_every_kind_of_step_has_a_step_that_loads(cache: Cache):
    needs = {"words": '"w"', "feature": "3", "prompt": '"p"'}
    text = HEAD
    for name, kind in scripts.KINDS.items():
        assert len(kind.help) > 10
        text += f'[[step]]\nkind = "{name}"\ntitle = "t"\n'
        text += "".join(f"{key} = {needs[key]}\n" for key in kind.needs)
        text += 'edits = ["3"]\n' if "edits" in kind.may else ""
    assert [step.kind for step in script(cache, text).steps] == list(scripts.KINDS)


def test_ones_own_scripts_come_after_the_bundled_ones_and_share_no_name(cache: Cache):
    made = script(cache, STEER + 'edits = ["3"]')
    mine = scripts.own() / "script.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text(STEER)
    assert scripts.known(cache) == {"script": made.path, "script-2": mine}


def test_a_recording_is_found_by_what_decides_an_answer_and_by_nothing_else(cache: Cache):
    (step,) = script(cache, STEER + 'edits = ["3:1"]\nstrengths = [1.0, 2.0]\ncontrol = "random"\n').steps
    keys = step.answers(0)
    assert list(keys) == ["baseline", "steered", "random"]
    assert len({*keys.values(), *step.answers(1).values()}) == 5  # one baseline for both
    assert replace(step, title="other", words="more", line=9).answers(0) == keys
    assert replace(step, prompt="Why?").answers(0).keys() & keys.keys() == keys.keys()
    for other in (replace(step, prompt="Why?"), replace(step, sampling=replace(step.sampling, seed=1))):
        assert not {*other.answers(0).values()} & {*keys.values()}


def test_recordings_of_another_model_are_left_alone(cache: Cache):
    made = script(cache, STEER + 'edits = ["3"]')
    path = scripts.recordings_path(made.path)
    said = {"model_fingerprint": cache.manifest.model_fingerprint, "sae_fingerprint": cache.manifest.sae_fingerprint}
    path.write_text(json.dumps({**said, "answers": {"k": {"pieces": ["a", "b"], "times": [0.1, 0.2]}}}))
    assert scripts.recordings(made, cache) == {"k": scripts.Recorded(("a", "b"), (0.1, 0.2))}
    path.write_text(json.dumps({**said, "model_fingerprint": "x" * 64, "answers": {}}))
    assert scripts.recordings(made, cache) == {}
    path.write_text("{")
    with pytest.raises(ScriptError, match="Record the answers again"):
        scripts.recordings(made, cache)
    path.unlink()
    assert scripts.recordings(made, cache) == {}


def test_record_gives_every_answer_of_a_script_and_the_app_can_find_them(tmp_path: Path, monkeypatch, capsys):
    from tests.helpers_steer import tiny_world

    monkeypatch.setenv("PERSONA_EXPLORER_HOME", str(tmp_path / "home"))
    cache = Cache.open(tiny_world(tmp_path, layers=2))
    text = STEER + 'edits = ["3:1"]\nstrengths = [1.0, -1.0]\nmax_tokens = 5\ncontrol = "random"\n'
    made = script(cache, text + '[[step]]\nkind = "question"\ntitle = "Ask"\nedits = ["3"]\n')
    assert command(["record", str(cache.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answers"] == 5
    found = scripts.recordings(made, cache)
    step = made.steps[0]
    assert {*step.answers(0).values(), *step.answers(1).values()} == found.keys()
    for answer in found.values():
        assert 0 < len(answer.pieces) == len(answer.times) <= 5
        assert list(answer.times) == sorted(answer.times)
    assert command(["record", str(cache.path), "nothing"]) == 2


def test_the_bundled_script_is_recorded_whole():
    world = Path(__file__).parents[1] / "cached_features" / "smollm2-135m"
    cache = Cache.open(world)
    made = scripts.load(scripts.known(cache)["script"], cache)
    assert {step.kind for step in made.steps} == set(scripts.KINDS)
    found = scripts.recordings(made, cache)
    missing = [
        (step.title, stop) for step in made.steps for stop in range(step.stops)
        if not {*step.answers(stop).values()} <= found.keys()
    ]  # fmt: skip
    assert not missing, "record them: persona-explorer record cached_features/smollm2-135m"
