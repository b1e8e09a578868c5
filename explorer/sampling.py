"""The model writes its own corpus: chats over topics, formats and a few system prompts, and free text.

Nobody's text is needed. What the model says of itself is what its features are about, and an SAE trained on it reads other text too.
"""

import hashlib
import json
import random
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from explorer.errors import CorpusError, RecipeError
from explorer.files import write_whole
from explorer.generate import Row, complete
from explorer.model import LanguageModel
from explorer.offensive import drop, flag
from explorer.records import Document, Sampling

_FINISHED = "finished"
PROMPT_KEYS = ("topics", "formats", "registers", "openings", "systems")


@dataclass(frozen=True, slots=True)
class Prompts:
    """What the sampled texts are about.

    Args:
        topics: Fill the `{topic}` of formats.
        formats: Requests; those without `{topic}` stand for themselves.
        registers: Put behind some requests ("Answer like a sports reporter.").
        openings: Beginnings of free text; an empty one lets the model begin.
        systems: System prompts, used in a minority of chats.
    """

    topics: tuple[str, ...]
    formats: tuple[str, ...]
    registers: tuple[str, ...]
    openings: tuple[str, ...]
    systems: tuple[str, ...]

    @classmethod
    def load(cls, path: Path) -> "Prompts":
        """Read a prompts file.

        Raises:
            RecipeError: If it is missing, no TOML, or lacks a list.
        """
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise RecipeError(f"{path} cannot be read ({error})", expected="a TOML file with prompts") from error
        wrong = [key for key in PROMPT_KEYS if not data.get(key) or not all(isinstance(x, str) for x in data[key])]
        if wrong:
            raise RecipeError(
                f"{path} lacks {', '.join(wrong)}", expected="lists of strings", do="Add them to the file"
            )
        return cls(**{key: tuple(data[key]) for key in PROMPT_KEYS})


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """How much is sampled, and how.

    Args:
        tokens: Stop when the corpus has this many.
        free_share: Share of documents that are free text instead of chats.
        system_share: Share of chats with a system prompt of ours.
        register_share: Share of chats whose request asks for a register.
    """

    tokens: int
    seed: int = 0
    batch: int = 192
    max_tokens: int = 160
    temperature: float = 0.9
    top_p: float = 0.97
    free_share: float = 0.25
    system_share: float = 0.3
    register_share: float = 0.3


def sample(
    model: LanguageModel,
    prompts: Prompts,
    out: Path,
    plan: SamplingPlan,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Let the model write until the corpus is long enough; go on where an earlier call was cut off.

    Every batch has its own seed, so a resumed corpus is the corpus that would have been written in one go. A document with a slur is
    dropped; one with swearing is flagged, for the app to blur.

    Args:
        out: A JSONL file; one document a line: `{"tokens", "content", "source", "flagged", "batch"}`.
        progress: Called with tokens so far and `plan.tokens`.
    Returns:
        `out`.
    Raises:
        CorpusError: If `out` was sampled with another plan, model or prompts.
    """
    header = {"plan": asdict(plan), "prompts": _digest(asdict(prompts)), "model": model.fingerprint}
    done, batch = _resume(out, header)
    settings = Sampling(plan.max_tokens, plan.temperature, plan.top_p, 1.0)
    with out.open("a", encoding="utf-8") as file:
        while done < plan.tokens:
            rng = random.Random(f"{plan.seed}:{batch}")
            openings = [_opening(model, prompts, plan, rng) for _ in range(plan.batch)]
            rows = [Row(opening.tokens, seed=rng.getrandbits(48)) for opening in openings]
            lines = []
            for opening, answer in zip(openings, complete(model, rows, settings), strict=True):
                document = _finish(model, opening, answer)
                text = model.vocabulary.text(document.tokens)
                if not drop(text):
                    done += len(document.tokens)
                    lines.append({**_plain(document), "flagged": flag(text), "batch": batch})
            file.write("".join(json.dumps(line) + "\n" for line in lines))
            file.flush()
            batch += 1
            progress(done, plan.tokens)
    _note(_plan(out), {**header, _FINISHED: True})
    return out


def _opening(model: LanguageModel, prompts: Prompts, plan: SamplingPlan, rng: random.Random) -> Document:
    """What the model is given to go on from."""
    if rng.random() < plan.free_share or not model.has_template:
        return model.begun(model.text_document(rng.choice(prompts.openings), "sampled text"))
    request = rng.choice(prompts.formats).replace("{topic}", rng.choice(prompts.topics))
    if rng.random() < plan.register_share:
        request = f"{request} {rng.choice(prompts.registers)}"
    messages = [{"role": "user", "content": request}]
    if rng.random() < plan.system_share:
        messages.insert(0, {"role": "system", "content": rng.choice(prompts.systems)})
    return model.chat_document(messages, add_generation_prompt=True, source="sampled chat")


def _finish(model: LanguageModel, opening: Document, answer: list[int]) -> Document:
    """The opening with what the model wrote; a closing special token is no content."""
    stop = len(answer) - (1 if answer and answer[-1] in model.vocabulary.special else 0)
    start = len(opening.tokens)
    return Document((*opening.tokens, *answer), (*opening.content, (start, start + stop)), opening.source)


def _plain(document: Document) -> dict[str, Any]:
    return {"tokens": list(document.tokens), "content": [list(s) for s in document.content], "source": document.source}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _resume(out: Path, header: dict[str, Any]) -> tuple[int, int]:
    """Tokens and batches that are there.

    A batch is whole when a later one follows it, or when the corpus was finished; the last one of an unfinished corpus is sampled again,
    which costs less than knowing.
    """
    plan = _plan(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    if not out.exists():
        _note(plan, header)
        return 0, 0
    try:
        noted = json.loads(plan.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CorpusError(
            f"There is a file at {out} that was not sampled here", do="Choose another name, or remove it"
        ) from None
    finished = noted.pop(_FINISHED, False)
    if noted != header:
        raise CorpusError(
            f"{out} was sampled with other settings, prompts or another model",
            expected=f"the settings in {plan}",
            do=f"Remove {out} to sample again",
        )
    lines = list(_lines(out))
    last = lines[-1]["batch"] if lines else 0
    if not finished:
        lines = [line for line in lines if line["batch"] < last]
        write_whole(out, "".join(json.dumps(line) + "\n" for line in lines))
    return sum(len(line["tokens"]) for line in lines), last + finished


def _plan(out: Path) -> Path:
    return out.with_suffix(".plan.json")


def _note(plan: Path, header: dict[str, Any]) -> None:
    write_whole(plan, json.dumps(header, indent=1))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a JSONL file; one that was cut off is left out."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)
