"""A cache with the model and the SAE that it was made with, loaded and checked; and the models that are compared with it."""

from dataclasses import dataclass
from pathlib import Path

from explorer.adapters import CONFIG, Adapter, adapted, known
from explorer.cache import Cache
from explorer.directions import known as known_directions
from explorer.errors import ModelError
from explorer.foreign import require_weights
from explorer.generate import Steering
from explorer.model import LanguageModel
from explorer.sae import SparseCoder


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """What a cache was made with, ready to be read and steered."""

    model: LanguageModel
    coder: SparseCoder
    steering: Steering


def attach(cache: Cache, *, model: str = "", device: str = "auto", dtype: str = "auto") -> Live:
    """Load what a cache was made with, and the directions that are kept for its model.

    Args:
        model: Where the model lies, if not where the cache says.
    Raises:
        ModelError, SaeError, CacheError: As `load_pair`.
        SteeringError: If a direction cannot be read.
    """
    live, coder = load_pair(cache, model=model, device=device, dtype=dtype)
    return Live(live, coder, Steering(coder, cache.maxima, directions=known_directions(cache)))


def load_pair(
    cache: Cache, *, model: str = "", device: str = "auto", dtype: str = "auto"
) -> tuple[LanguageModel, SparseCoder]:
    """Load the model and the SAE that a cache was made with; no file of a direction is in their way.

    Args:
        model: Where the model lies, if not where the cache says.
    Raises:
        ModelError, SaeError: If one cannot be loaded, or the cache was made from files without weights.
        CacheError: If it is not the one the cache was made with.
    """
    require_weights(cache.manifest)
    live = LanguageModel.load(model or cache.manifest.model, device=device, dtype=dtype)
    where = cache.sae_folder or cache.manifest.sae
    coder = SparseCoder.load(where, device=str(live.device), hook_point=cache.manifest.hook_point)
    cache.require(model=(live.name, live.fingerprint), sae=(coder.source, coder.fingerprint))
    return live, coder


def other(base: LanguageModel, spelled: str, cache: Cache | None = None) -> LanguageModel:
    """A model to compare with `base`.

    Args:
        spelled: An adapter of the cache (`run@step`), the folder of an adapter, or what `LanguageModel.load` takes.
        cache: Where adapters are looked up by name.
    Raises:
        ModelError: If there is none, or it has another shape than `base`.
    """
    named = known(cache.path) if cache else {}
    if spelled in named:
        return adapted(base, named[spelled])
    folder = Path(spelled)
    if (folder / CONFIG).is_file() or list(folder.glob("adapter_model.*")):
        return adapted(base, Adapter.at(folder))
    if "@" in spelled and named:
        raise ModelError(f"There is no adapter {spelled!r}", expected=", ".join(named), do="Name one of these")
    found = LanguageModel.load(spelled, device=str(base.device), dtype=str(base.dtype).removeprefix("torch."))
    if (found.d_model, found.n_layers) != (base.d_model, base.n_layers):
        raise ModelError(
            f"{spelled} has {found.n_layers} blocks of width {found.d_model}",
            expected=f"{base.n_layers} of width {base.d_model}, as {base.name} has",
            do="Compare models of one family",
        )
    return found
