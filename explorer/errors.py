"""The errors a person can meet, each with what was found, what was expected and what to do.

ExplorerError
├── UsageError      a command or call was asked for something that makes no sense
├── ModelError      a language model cannot be loaded or does not fit
│   └── FetchError  a packaged model could not be brought here whole
├── HookError       a hook point that the model does not have
├── SaeError        a sparse autoencoder cannot be loaded or does not fit
├── CorpusError     a corpus cannot be read
├── CacheError      a feature cache is missing, damaged, or made for something else
├── RecipeError     a recipe file is wrong, or one of its steps failed
├── SteeringError   an edit cannot be applied
├── LabelError      labels cannot be read or written
├── JudgeError      a judge cannot be fitted or asked
└── ScriptError     a presentation's script is wrong
"""


class ExplorerError(Exception):
    """An error whose text a person can act on.

    Args:
        found: What is the case, in one sentence without a full stop.
        expected: What should have been the case.
        do: What the person can do next.
    """

    def __init__(self, found: str, *, expected: str = "", do: str = "") -> None:
        self.found, self.expected, self.do = found, expected, do
        parts = [found, f"expected {expected}" if expected else "", do]
        super().__init__(". ".join(part.rstrip(".") for part in parts if part) + ".")


class UsageError(ExplorerError):
    """A command or call was asked for something that makes no sense."""


class ModelError(ExplorerError):
    """A language model cannot be loaded or does not fit."""


class FetchError(ModelError):
    """A packaged model could not be brought here whole."""


class HookError(ExplorerError):
    """A hook point that the model does not have."""


class SaeError(ExplorerError):
    """A sparse autoencoder cannot be loaded or does not fit."""


class CorpusError(ExplorerError):
    """A corpus cannot be read."""


class CacheError(ExplorerError):
    """A feature cache is missing, damaged, or made for something else."""


class RecipeError(ExplorerError):
    """A recipe file is wrong, or one of its steps failed."""


class SteeringError(ExplorerError):
    """An edit cannot be applied."""


class LabelError(ExplorerError):
    """Labels cannot be read or written."""


class JudgeError(ExplorerError):
    """A judge cannot be fitted or asked."""


class ScriptError(ExplorerError):
    """A presentation's script is wrong, or its recordings cannot be read."""
