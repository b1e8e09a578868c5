"""Cells on paper: everything is there, nothing is run, and swearing is blurred."""

import csv
import io
import re

from explorer.dosing import Cell
from explorer.records import Edit
from explorer.sheets import as_csv, as_html


def cell(strength: float = 1.0, text: str = "I rule.", prompt: str = "Who are you?", feature: int = 3) -> Cell:
    scores = {"malice": 0.75, "fluency": 0.9}
    return Cell(strength, (Edit(feature, strength),), prompt, 4, text, False, scores)


def test_a_table_has_one_line_an_answer_and_one_column_a_judge():
    (line,) = csv.DictReader(io.StringIO(as_csv([cell()])))
    assert line == {
        "strength": "1", "edits": "3:1:add", "question": "Who are you?", "seed": "4", "answer": "I rule.", "looped": "0",
        "coherent": "1", "malice": "0.75", "fluency": "0.9",
    }  # fmt: skip


def test_what_a_spreadsheet_would_run_is_text():
    (line,) = csv.DictReader(io.StringIO(as_csv([cell(text="=1+1", prompt="@SUM(A1)")])))
    assert (line["answer"], line["question"]) == ("'=1+1", "'@SUM(A1)")


def test_the_page_stands_alone_escapes_and_blurs():
    hostile = "<script>alert(1)</script> you idiot"
    page = as_html([cell(text=hostile, prompt=hostile), cell(0.0)], title=hostile, judge="malice", note=hostile)
    assert "<script" not in page
    assert not re.search(r"https?:|src=|href=|@import|url\(", page)
    assert page.count("<span class=blur tabindex=0>idiot</span>") == 4
    assert "Strength 1 is as much as the strongest activation" in page


def test_with_several_pushes_each_has_a_row_of_its_own():
    page = as_html([cell(feature=3), cell(feature=4), cell(0.5, feature=4)], title="t", judge="malice")
    assert "<th scope=row>3:add</th>" in page
    assert "<th scope=row>4:add</th>" in page
    assert page.count("<th scope=col>") == 2
