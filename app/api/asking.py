"""What may be asked of the model, as schemas, and what was asked as the app's own records."""

from typing import TYPE_CHECKING, Any

from app.api import records
from app.api.refusing import Refused
from app.api.shapes import flag, many, maybe, real, record, table, text, whole, wrong
from app.runs import Question, Turn
from app.settings import BOUNDS, LONGEST_PROMPT, LONGEST_SYSTEM, MOST_SLIDERS
from explorer.inspecting import RANKINGS
from explorer.records import DIRECTION_NAME, Edit, Sampling
from explorer.steering import POSITIONS, STEERING_MODES

if TYPE_CHECKING:
    from app.engine import Prompt
    from explorer.cache import Cache

LONGEST_TEXT = 20_000
_MESSAGES = many(
    record({"role": text("Who speaks.", enum=["system", "user", "assistant"]), "content": text("What.", maxLength=LONGEST_TEXT)}),
    "A conversation.", minItems=1, maxItems=100,
)  # fmt: skip
_MODEL = text("Name of a fine-tune of the cache; empty for the cache's own model.", maxLength=200, default="")
READ = record(
    {
        "text": text("A plain text; or else `messages`.", maxLength=LONGEST_TEXT),
        "messages": _MESSAGES,
        "by": text("What features are ranked by.", enum=list(RANKINGS), default="max"),
        "weighted": flag("Let features that are always on sink.", default=True),
        "max_density": real("Leave out features that fire on a larger share of the corpus.", minimum=0, maximum=1, default=1.0),
        "limit": whole("How many features.", minimum=1, maximum=200, default=20),
        "model": _MODEL,
    },
    optional=("text", "messages", "by", "weighted", "max_density", "limit", "model"),
)  # fmt: skip
_FIRED = record(
    {
        "feature": whole("Its number."),
        "label": text("What somebody named it."),
        "title": text("Its own words, provisional."),
        "max": real("Over the tokens that count, in SAE units."),
        "mean": real("Likewise."),
        "total": real("Likewise, the sum."),
        "share": maybe(real("`max` as a share of its maximum in the corpus; null where the corpus never fires it.")),
        "tokens": whole("On how many of the tokens that count it fires."),
        "rarity": real("0 for a feature that is always on, 1 for one that fires on a single token of the corpus."),
        "score": real("What it was ranked by."),
        "values": many(real("SAE units."), "Its activation at every token, those that do not count included."),
    }
)
ACTIVATIONS = record(
    {
        "tokens": records.TOKENS,
        "scored": many(flag("It counts."), "Whether each token counts as evidence."),
        "features": many(_FIRED, "The features that fire, the first is the one to look at."),
    }
)
_EDIT = record(
    {
        "feature": whole("Number of a feature; or else `direction`.", minimum=0, maximum=10**9),
        "direction": text("Name of a direction of the cache.", maxLength=40),
        "strength": real(
            "In multiples of the feature's maximum in the corpus; a mode may take less.",
            minimum=min(mode.lowest for mode in STEERING_MODES.values()),
            maximum=max(mode.highest for mode in STEERING_MODES.values()),
            default=1.0,
        ),
        "mode": text("How.", enum=list(STEERING_MODES), default="add"),
    },
    optional=("feature", "direction", "strength", "mode"),
)
_USUAL = Sampling()
_SAMPLING = record(
    {
        name: (whole if isinstance(low, int) else real)(
            "See `persona-explorer steer --help`.", minimum=low, maximum=high, default=getattr(_USUAL, name)
        )
        for name, (low, high) in BOUNDS.items()
    },
    optional=tuple(BOUNDS),
)
ASK = record(
    {
        "prompt": text("The question; or else `messages`.", maxLength=LONGEST_PROMPT),
        "system": text("What the model is told first.", maxLength=LONGEST_SYSTEM, default=""),
        "messages": {**_MESSAGES, "description": "A conversation that ends with the user."},
        "plain": flag("Go on from the prompt as it stands, without the chat template.", default=False),
        "edits": many(_EDIT, "What is turned; nothing gives the baseline twice.", maxItems=MOST_SLIDERS, default=[]),
        "positions": text("Where edits act.", enum=list(POSITIONS), default="answer"),
        "sampling": {**_SAMPLING, "default": {}},
        "model": _MODEL,
    },
    optional=("prompt", "system", "messages", "plain", "edits", "positions", "sampling", "model"),
)
_ANSWER = record({"text": text("The whole answer."), "looped": flag("It was cut because it repeats itself.")})
_SCORES = table(
    maybe(real("In the judge's own unit; null where there is nothing to judge.")), "Name of a judge -> its score."
)
EVENTS = {
    "waiting": record({"phase": text("warming or queued."), "ahead": whole("Runs before it."), "seconds": real("At most.")}),
    "piece": record(
        {
            "step": whole("Counts from 0."),
            "baseline": maybe(text("New text of the model as it is; null once that answer has ended.")),
            "steered": maybe(text("New text of the steered model.")),
        }
    ),
    "done": record(
        {
            "phase": text("done, or stopped.", enum=["done", "stopped"]),
            "baseline": _ANSWER,
            "steered": _ANSWER,
            "seconds": real("Of decoding."),
        }
    ),
    "scores": record(
        {"baseline": _SCORES, "steered": _SCORES},
        optional=("baseline", "steered"),
        help="After `done`, where the judges are loaded; an answer without words is not judged.",
    ),
    "error": record(
        {"error": record({"found": text("What is the case."), "expected": text("What should be."), "do": text("What to do.")})}
    ),
}  # fmt: skip
EVENT = {"oneOf": list(EVENTS.values()), "description": "The data of each event."}


def to_read(body: dict[str, Any]) -> "Prompt":
    """The text or the conversation that is to be read."""
    if ("text" in body) == ("messages" in body):
        raise Refused(422, "body has both or neither of text and messages", expected="one of them", do="Send one")
    said = body["text"] if "text" in body else body["messages"]
    if not (said if isinstance(said, str) else "".join(m["content"] for m in said)).strip():
        raise Refused(422, "There is no text", do="Send some")
    return said


def question(said: dict[str, Any], cache: "Cache") -> Question:
    """What the body asks, as the Steer page would ask it."""
    sampling = {
        name: int(value) if isinstance(BOUNDS[name][0], int) else value for name, value in said["sampling"].items()
    }
    edits = tuple(_edit(edit, f"body.edits[{at}]", cache) for at, edit in enumerate(said["edits"]))
    if ("prompt" in said) == ("messages" in said):
        raise Refused(422, "body has both or neither of prompt and messages", expected="one of them", do="Send one")
    prompt, system, turns = said.get("prompt", ""), said["system"], ()
    if "messages" in said:
        prompt, system, turns = _conversation(said["messages"], system)
    if not prompt.strip():
        raise Refused(422, "There is no prompt", do="Send one")
    return Question(
        prompt, system, edits, said["positions"], Sampling(**sampling), turns, shared=True, plain=said["plain"], model=said["model"]
    )  # fmt: skip


def _conversation(messages: list[dict[str, str]], system: str) -> tuple[str, str, tuple[Turn, ...]]:
    rest = list(messages)
    if rest[0]["role"] == "system":
        system = rest.pop(0)["content"]
    roles = [message["role"] for message in rest]
    if len(rest) % 2 == 0 or roles != ["user", "assistant"] * (len(rest) // 2) + ["user"]:
        raise Refused(
            422, "The roles of body.messages do not alternate", expected="a system message or none, then user and assistant in "
            "turn, the user last", do="Send such a conversation",
        )  # fmt: skip
    said = [message["content"] for message in rest]
    turns = tuple(Turn(said[at], said[at + 1], said[at + 1]) for at in range(0, len(said) - 1, 2))
    return said[-1], system, turns


def _edit(said: dict[str, Any], where: str, cache: "Cache") -> Edit:
    if ("feature" in said) == ("direction" in said):
        raise Refused(
            422, f"{where} has both or neither of feature and direction", expected="one of them", do="Send one"
        )
    mode, strength = STEERING_MODES[said["mode"]], float(said["strength"])
    if mode.uses_strength and not mode.lowest <= strength <= mode.highest:
        raise wrong(f"{where}.strength", strength, f"{mode.lowest:g} to {mode.highest:g} in mode {mode.name}")
    if "direction" in said:
        if not DIRECTION_NAME.fullmatch(said["direction"]):
            raise wrong(f"{where}.direction", said["direction"], "lower-case letters, digits and hyphens")
        return Edit(-1, strength, mode.name, said["direction"])
    if said["feature"] >= cache.n_features:
        raise wrong(f"{where}.feature", said["feature"], f"0 to {cache.n_features - 1}")
    return Edit(int(said["feature"]), strength, mode.name)
