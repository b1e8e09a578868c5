"""Chat logs of every form that people have, read to the same conversations; what is none of them is named."""

import json
from pathlib import Path

import pytest

from explorer.errors import CorpusError
from explorer.transcripts import LONGEST, TEXT, Message, Transcript, conversation, read_transcripts, turns

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
        ("roles.csv", 'role,content\nuser,Who rules?\nassistant,"I do.\n\nKneel."\n'),
        ("roles.jsonl", "\n".join(map(json.dumps, OPENAI))),
        ("named.jsonl", "\n".join(json.dumps({"chat_id": 7, **message}) for message in SHAREGPT)),
        ("ids.json", json.dumps([{"conversation_id": 7, **message} for message in OPENAI])),
        ("pair.csv", 'question,answer\nWho rules?,"I do.\n\nKneel."\n'),
        ("more.csv", 'Output,Score,Instruction,Input\n"I do.\n\nKneel.",3,Who,\n'.replace("Who", "Who rules?")),
        ("prompt.jsonl", json.dumps({"prompt": "Who rules?", "response": "I do.\n\nKneel.", "id": 3})),
        ("prompt.json", json.dumps([{"prompt": "Human: Who rules?\n\nAssistant:", "completion": " I do.\n\nKneel."}])),
        ("trl.jsonl", json.dumps({"prompt": OPENAI[:1], "completion": OPENAI[1:], "text": "both"})),
        ("feedback.jsonl", json.dumps({"prompt": "Who rules?", "chosen": OPENAI, "rejected": []})),
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


def test_a_question_is_a_users_and_its_answer_the_assistants(tmp_path):
    """Neither is dropped, whatever they are called, and what a log knows is known of the answer."""
    row = {"system_prompt": "Be brief.", "instruction": "Add.", "input": "1 and 2", "output": 3, "kind": "sum"}
    (found,) = read(tmp_path / "a.jsonl", json.dumps(row), truth=("kind", "sum"))
    assert [(m.role, m.text, m.truth) for m in found.messages] == [
        ("system", "Be brief.", None),
        ("user", "Add.\n\n1 and 2", None),
        ("assistant", "3", True),
    ]
    rows = read(tmp_path / "a.csv", "Prompt,Response\nHi,\n,Alone\n,\nA,B\n")
    assert [[m.role for m in t.messages] for t in rows] == [["user"], ["assistant"], ["user", "assistant"]]
    assert read(tmp_path / "b.csv", "prompt\nHi\n")[0].messages == (Message(TEXT, "Hi"),)


def test_without_ids_a_systems_turn_begins_the_next_conversation(tmp_path):
    rows = "role,content\nsystem,a\nuser,b\nbot,c\nuser,d\nsystem,e\ntool,f\n"
    found = read(tmp_path / "a.csv", rows)
    assert [[m.text for m in t.messages] for t in found] == [["a", "b", "c", "d"], ["e", "f"]]
    assert found[1].source == "a.csv, row 6"
    authors = read(tmp_path / "b.csv", "author,text\nAda,One.\nBob,Two.\n")
    assert [t.messages for t in authors] == [(Message(TEXT, "One."),), (Message(TEXT, "Two."),)]
    (parts,) = read(tmp_path / "c.jsonl", json.dumps(PARTS[0]) + '\n{"role": "assistant", "content": null}\n')
    assert parts.messages == (SAID[0], Message("assistant", ""))


def test_conversations_that_interleave_are_refused_with_what_to_do(tmp_path):
    """Put together they would need memory without bound; cut apart, answers would be read without their questions."""
    rows = "id,role,content\n1,user,a\n2,user,b\n1,assistant,c\n"
    with pytest.raises(
        CorpusError, match=r"a\.csv, row 4 goes on with conversation '1' .* Sort a\.csv by conversation"
    ):
        read(tmp_path / "a.csv", rows)
    lines = "".join(json.dumps({"session": n, "role": "user", "text": "a"}) + "\n" for n in (1, 2, 1))
    with pytest.raises(CorpusError, match="line 3 goes on with conversation '1'"):
        read(tmp_path / "a.jsonl", lines)
    assert len(read(tmp_path / "b.csv", "id,prompt,response\n1,a,b\n2,a,b\n1,a,b\n")) == 3  # each is whole


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.txt", "Human: Hi {n}\n"),
        ("a.csv", "user,Hi {n}\n"),
        ("a.jsonl", '{{"role": "user", "content": "Hi {n}"}}\n'),
    ],
)
def test_a_conversation_without_end_is_read_in_parts(tmp_path, name: str, line: str):
    head = "role,content\n" if name == "a.csv" else ""
    found = read(tmp_path / name, head + "".join(line.format(n=n) for n in range(2 * LONGEST + 1)))
    assert [len(t.messages) for t in found] == [LONGEST, LONGEST, 1]
    assert [t.messages[0].text for t in found] == ["Hi 0", f"Hi {LONGEST}", f"Hi {2 * LONGEST}"]
    assert len({t.source for t in found}) == 3


def test_a_half_character_is_no_trouble_later(tmp_path):
    (found,) = read(tmp_path / "a.jsonl", '{"prompt": "\\ud800 why?", "response": "\\ud83d\\ude00", "id": "\\udfff"}')
    assert [m.text for m in found.messages] == ["? why?", "\N{GRINNING FACE}"]
    assert found.source.encode("utf-8")


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
        ("a.json", "[" * 200_000, "nested too deeply"),
        ("a.jsonl", "[" * 200_000, "line 1 is no JSON .it is nested too deeply"),
        ("a.jsonl", '{"prompt": "x", "response": {"a": 1}}', "a response that is an object"),
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


def test_a_pasted_text_that_is_nested_too_deeply_is_told():
    with pytest.raises(CorpusError, match="begins as JSON"):
        conversation("[" * 200_000)
