"""Outside exams: what the bundled judges make of labelled text that nobody here wrote. Reported whatever it says, and fitted on nothing of it.

HateCheck asks whether a sentence is hateful towards people, in matched pairs that share their words; iSarcasm holds tweets that their own
authors marked as sarcastic. Both are about something else than the traits here (a villain's malice is not hatred of a group), so these
figures have no target: they say how far a judge reaches beyond the sentences it was fitted on.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from explorer.errors import CorpusError
from explorer.fidelity import Figure
from explorer.judging import Panel
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
    "malice_judge_hatecheck_auroc": Exam(
        "malice", *_HATECHECK, "Malice judge on HateCheck: hateful or not, in matched pairs."
    ),
    "toxicity_judge_hatecheck_auroc": Exam("toxicity", *_HATECHECK, "Toxicity judge on HateCheck, likewise."),
    "sarcasm_judge_isarcasm_auroc": Exam(
        "sarcasm",
        "isarcasm_task_A_En_test.csv",
        "text",
        "sarcastic",
        "1",
        "Sarcasm judge on iSarcasm: tweets, sarcastic or not.",
    ),
}


def outside_exams(
    panel: Panel, folder: Path, *, names: Sequence[str] = (), progress: Callable[[str], None] = lambda line: None
) -> dict[str, Figure]:
    """The figures of the exams whose file lies in `folder` and whose judge there is.

    Args:
        names: Only these; all by default.
    Raises:
        CorpusError: If there is no exam, or a file is not what its exam says.
    """
    from explorer.judging import judges

    known, found = judges(), {}
    if not any((folder / exam.file).is_file() for exam in EXAMS.values()):
        raise CorpusError(
            f"{folder} holds no exam", expected=" or ".join(sorted({exam.file for exam in EXAMS.values()})),
            do="Give the folder in which these lie",
        )  # fmt: skip
    for name in names or EXAMS:
        exam = EXAMS[name]
        if exam.judge not in known or not (folder / exam.file).is_file():
            continue
        progress(f"{name}: reading {exam.file}")
        texts, labels = _read(folder / exam.file, exam)
        said = np.array(panel.score([exam.judge], texts)[exam.judge])
        auroc, positive = held_out_auroc(said, labels), int(labels.sum())
        found[name] = Figure(
            auroc, f"{len(texts):,} outside texts, {positive:,} of them positive",
            *auroc_interval(auroc, positive, len(texts) - positive), 0.5, "", exam.help,
        )  # fmt: skip
    return found


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
