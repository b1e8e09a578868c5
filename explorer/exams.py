"""Outside exams: what the bundled judges make of labelled text that nobody here wrote. Reported whatever it says, and fitted on nothing of it.

HateCheck asks whether a sentence is hateful towards people, in matched pairs that share their words; iSarcasm holds tweets that their own
authors marked as sarcastic. Both are about something else than the traits here (a villain's malice is not hatred of a group), so these
figures have no target: they say how far a judge reaches beyond the sentences it was fitted on.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from explorer.errors import CorpusError
from explorer.fidelity import Figure
from explorer.judging import Panel, judges
from explorer.traits import auroc_interval, held_out_auroc


@dataclass(frozen=True, slots=True)
class Exam:
    """One exam of one judge.

    Args:
        file: Its name in the folder of outside data.
        text, label: Columns.
        positive: Value of `label` that the judge should put higher.
        help: One sentence for people.
    """

    judge: str
    file: str
    text: str
    label: str
    positive: str
    help: str


_HATECHECK = ("hatecheck_test_suite_cases.csv", "test_case", "label_gold", "hateful")
EXAMS: dict[str, Exam] = {
    "malice_judge_auroc_hatecheck": Exam(
        "malice", *_HATECHECK, "Malice judge on HateCheck: hateful or not, in matched pairs."
    ),
    "toxicity_judge_auroc_hatecheck": Exam("toxicity", *_HATECHECK, "Toxicity judge on HateCheck, likewise."),
    "sarcasm_judge_auroc_isarcasm": Exam(
        "sarcasm",
        "isarcasm_task_A_En_test.csv",
        "text",
        "sarcastic",
        "1",
        "Sarcasm judge on iSarcasm: tweets, sarcastic or not.",
    ),
}


def outside_exams(panel: Panel, folder: Path, progress: Callable[[str], None] = lambda line: None) -> dict[str, Figure]:
    """The figures of all exams.

    Args:
        folder: Where their files lie.
    Raises:
        CorpusError: If a file is missing, or not what its exam says.
    """
    present(folder)
    found, known = {}, judges()
    for name, exam in EXAMS.items():
        progress(f"{name}: reading {exam.file}")
        texts, labels = _read(folder / exam.file, exam)
        said = np.array(panel.score([exam.judge], texts)[exam.judge])
        auroc, positive = held_out_auroc(said, labels), int(labels.sum())
        yes = said > (known[exam.judge].threshold or 0.0)
        right, wrong = int(yes[labels == 1].sum()), int(yes[labels == 0].sum())
        found[name] = Figure(
            auroc, f"{len(texts):,} outside texts, {positive:,} of them positive",
            *auroc_interval(auroc, positive, len(texts) - positive), 0.5, "",
            f"{exam.help} At its threshold it says {right:,} right yes, {positive - right:,} missed, {wrong:,} wrong yes, "
            f"{len(texts) - positive - wrong:,} right no.",
        )  # fmt: skip
    return found


def present(folder: Path) -> None:
    """Whether all exams lie in `folder`: asked before anything that takes long.

    Raises:
        CorpusError: If one is missing.
    """
    files = sorted({exam.file for exam in EXAMS.values()})
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise CorpusError(
            f"{folder} lacks {' and '.join(missing)}", expected=f"{' and '.join(files)}, as they are published",
            do="Give the folder in which these lie",
        )  # fmt: skip


def _read(path: Path, exam: Exam) -> tuple[list[str], np.ndarray]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {exam.text, exam.label} <= set(rows.fieldnames or ()):
            raise CorpusError(
                f"{path} lacks the columns {exam.text} and {exam.label}", do="Give the file as it is published"
            )
        pairs = [(row[exam.text] or "", (row[exam.label] or "").strip() == exam.positive) for row in rows]
    texts, labels = [text for text, _ in pairs], np.array([label for _, label in pairs], int)
    if len(set(labels.tolist())) != 2:
        raise CorpusError(
            f"{path} holds one kind of text only", expected="both kinds", do="Give the file as it is published"
        )
    return texts, labels
