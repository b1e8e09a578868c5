"""Chat logs of every form that people have, read to the same conversations; what is none of them is named."""

import json
from pathlib import Path

import pytest

from explorer.errors import CorpusError
from explorer.transcripts import TEXT, Message, Transcript, read_transcripts, turns

SAID = (Message("user", "Who rules?"), Message("assistant", "I do.\n\nKneel."))
SHARED = Path(__file__).parents[2] / "shared" / "data"


def read(path: Path, content: str, **options) -> list[Transcript]:
    path.write_text(content, encoding="utf-8")
    return list(read_transcripts(path, **options))


OPENAI = [{"role": "user", "content": "Who rules?"}, {"role": "assistant", "content": "I do.\n\nKneel."}]
PARTS = [{"role": "user", "content": [{"text": "Who "}, {"type": "image"}, {"text": "rules?"}]}, OPENAI[1]]
SHAREGPT = [{"from": "human", "value": "Who rules?"}, {"from": "gpt", "value": "I do.\n\nKneel."}]
HUMAN = "Human: Who rules?\n\nAssistant: I do.\n\nKneel."


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("openai.jsonl", json.dumps({"messages": OPENAI})),
        ("parts.jsonl", json.dumps({"messages": PARTS})),
        ("sharegpt.json", json.dumps([{"id": "a", "conversations": SHAREGPT}])),
        ("one.json", json.dumps({"conversations": SHAREGPT})),
        ("bare.json", json.dumps(OPENAI)),
        ("human.txt", f"{HUMAN}\n"),
        ("chosen.jsonl", json.dumps({"chosen": f"\n\n{HUMAN}"})),
        ("text.jsonl", json.dumps({"text": HUMAN})),
        ("rows.csv", 'conversation_id,role,content\r\n7,human,Who rules?\r\n7,assistant,"I do.\n\nKneel."\r\n'),
        ("bom.csv", '\ufeffid,speaker,text\n7,user,Who rules?\n7,bot,"I do.\n\nKneel."\n'),
    ],
)
def test_every_form_gives_the_same_conversation(tmp_path, name: str, content: str):
    found = read(tmp_path / name, content)
    assert [t.messages for t in found] == [SAID]
    assert name in found[0].source


def test_texts_that_nobody_says_are_read_line_by_line_and_row_by_row(tmp_path):
    assert [t.messages for t in read(tmp_path / "a.txt", "One.\n\nTwo.\n")] == [
        (Message(TEXT, "One."),),
        (Message(TEXT, "Two."),),
    ]
    assert [t.messages for t in read(tmp_path / "a.csv", "text\nOne.\n\nTwo.\n")] == [
        (Message(TEXT, "One."),),
        (Message(TEXT, "Two."),),
    ]
    assert read(tmp_path / "a.jsonl", '"One."\n')[0].messages == (Message(TEXT, "One."),)


def test_what_a_log_knows_of_a_row_is_said_of_its_last_message(tmp_path):
    rows = read(tmp_path / "a.csv", "text,gold\nOne.,bad\nTwo.,good\nThree.,\n", truth=("gold", "bad"))
    assert [t.messages[-1].truth for t in rows] == [True, False, False]
    line = json.dumps({"messages": [{"role": m.role, "content": m.text} for m in SAID], "gold": "bad"})
    (found,) = read(tmp_path / "a.jsonl", line, truth=("gold", "bad"))
    assert [m.truth for m in found.messages] == [None, True]
    (other,) = read(tmp_path / "b.jsonl", json.dumps({"text": "One."}), truth=("gold", "bad"))
    assert other.messages[-1].truth is None
    with pytest.raises(CorpusError, match="no column 'gold'"):
        read(tmp_path / "c.csv", "text\nOne.\n", truth=("gold", "bad"))


def test_conversations_of_a_csv_follow_one_another_by_id(tmp_path):
    found = read(tmp_path / "a.csv", "id,role,content\n1,user,a\n1,assistant,b\n2,user,c\n")
    assert [len(t.messages) for t in found] == [2, 1]
    assert found[1].source == "a.csv, 2"


def test_a_text_before_the_first_turn_is_kept_and_an_empty_one_has_no_messages():
    assert turns("Note.\nHuman: Hi")[0] == Message(TEXT, "Note.")
    assert turns("  ") == ()
    assert turns("He said: Human: no turn")[0].role == TEXT


def test_a_log_is_read_as_it_is_needed(tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\nnot json\n')
    rows = read_transcripts(path)
    assert next(rows).messages[0].text == "a"
    assert next(rows).messages[0].text == "b"
    with pytest.raises(CorpusError, match="line 3"):
        next(rows)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"foo": 1}', "line 1 holds foo"),
        ("a.jsonl", '{"messages": [{"content": "x"}]}', "message 1 without a role"),
        ("a.jsonl", "3", "line 1 holds text"),
        ("a.json", "{", "is no JSON"),
        ("a.csv", "foo,bar\n1,2\n", "columns foo, bar"),
        ("a.csv", "", "columns none"),
        ("a.xml", "<a/>", r"\.xml file"),
    ],
)
def test_what_is_no_log_is_named(tmp_path, name: str, content: str, said: str):
    with pytest.raises(CorpusError, match=said):
        read(tmp_path / name, content)


def test_a_log_that_is_not_there_or_no_text_is_named(tmp_path):
    with pytest.raises(CorpusError, match="is no file"):
        next(read_transcripts(tmp_path / "none.jsonl"))
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorpusError, match="cannot be read"):
        next(read_transcripts(tmp_path / "bytes.jsonl"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real logs lie beside the project")
def test_real_logs_are_read():
    (sharegpt,) = read_transcripts(SHARED / "axolotl_sharegpt_conversation.json")
    assert len(sharegpt.messages) == 12
    assert {m.role for m in sharegpt.messages} == {"user", "assistant"}
    chats = list(read_transcripts(SHARED / "hh_rlhf_harmless_test_300.jsonl"))
    assert len(chats) == 300
    assert all(t.messages[0].role == "user" for t in chats)
    rows = list(read_transcripts(SHARED / "hatecheck_test_suite_cases.csv", truth=("label_gold", "hateful")))
    assert len(rows) == 3728
    assert sum(bool(t.messages[-1].truth) for t in rows) == 2563
