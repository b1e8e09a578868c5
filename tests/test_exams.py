"""Outside exams, on files of the same form made here."""

import csv
from pathlib import Path

import pytest

from explorer import exams, packaged
from explorer.errors import CorpusError
from explorer.exams import EXAMS, Exam, outside_exams
from explorer.judging import Panel
from explorer.traits import save_trait
from tests.helpers_judges import GRIM, MILD, WordEmbedder, grim


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(packaged.HOME_VARIABLE, str(tmp_path / "home"))
    save_trait(grim())
    monkeypatch.setattr(
        exams, "EXAMS", {"grim_auroc": Exam("grim", "exam.csv", "t", "l", "yes", "An exam of two kinds.")}
    )
    return tmp_path


def write(folder: Path, rows: list[tuple[str, str]], columns: tuple[str, str] = ("t", "l")) -> None:
    with (folder / "exam.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def test_an_exam_is_a_figure_without_a_target(folder):
    write(folder, [(text, "yes") for text in GRIM] + [(text, "no") for text in MILD])
    figure = outside_exams(Panel(embedder=WordEmbedder()), folder)["grim_auroc"]
    assert figure.value == 1
    assert (figure.target, figure.met) == ("", None)
    assert "8 right yes, 0 missed, 0 wrong yes, 8 right no" in figure.meaning
    assert figure.n == "16 outside texts, 8 of them positive"


def test_labels_the_other_way_round_are_reported_as_they_are(folder):
    write(folder, [(text, "no") for text in GRIM] + [(text, "yes") for text in MILD])
    assert outside_exams(Panel(embedder=WordEmbedder()), folder)["grim_auroc"].value == 0


def test_missing_files_are_named_and_nothing_is_left_out_in_silence(folder, monkeypatch):
    with pytest.raises(CorpusError, match=r"lacks exam\.csv.*expected exam\.csv"):
        outside_exams(Panel(embedder=WordEmbedder()), folder)
    write(folder, [(GRIM[0], "yes"), (MILD[0], "no")])
    monkeypatch.setitem(exams.EXAMS, "other_auroc", Exam("grim", "other.csv", "t", "l", "yes", "Another exam."))
    with pytest.raises(CorpusError, match=r"lacks other\.csv\."):
        outside_exams(Panel(embedder=WordEmbedder()), folder)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([("a", "yes")], ("text", "l"), "lacks the columns t and l"),
        ([("a", "yes")], ("t", "l"), "one kind of text only"),
    ],
)
def test_a_file_that_is_no_exam_is_said(folder, rows, columns, message):
    write(folder, rows, columns)
    with pytest.raises(CorpusError, match=message):
        outside_exams(Panel(embedder=WordEmbedder()), folder)


def test_every_exam_explains_itself():
    assert all(len(exam.help) > 10 and f"{exam.judge}_judge_auroc_" in name for name, exam in EXAMS.items())
