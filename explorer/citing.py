"""What a feature is called elsewhere: a reference that says what it was seen in."""

import hashlib
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from explorer.cache import Cache
from explorer.schema import MANIFEST

_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def cache_hash(cache: Cache) -> str:
    """sha256 of a cache's manifest, which holds the hash of every other file."""
    return hashlib.sha256((cache.path / MANIFEST).read_bytes()).hexdigest()


def app_version() -> str:
    """The version of this program."""
    try:
        return version("persona-explorer")
    except PackageNotFoundError:
        return "unknown"


def citation(cache: Cache, feature: int, label: str, link: str = "") -> str:
    """A BibTeX entry for a feature as this cache shows it.

    Args:
        label: What somebody named it, or "".
        link: The address of its page, as a browser spells it, or "".
    """
    said = cache.manifest
    model, sae = (Path(name).name if Path(name).is_absolute() else name for name in (said.model, said.sae))
    called = f": {_tex(label)}" if label else ""
    fields = {
        "title": f"{{Feature {feature} of {_tex(model)}, {_tex(said.hook_point)}{called}}}",
        "howpublished": f"Persona Explorer {app_version()}",
        "year": said.created[:4] if said.created[:4].isdigit() else "",
        "note": f"SAE {_tex(sae)}, fingerprint {said.sae_fingerprint}; feature cache {cache_hash(cache)}; "
        f"{said.n_features} features, corpus {_tex(said.corpus)}",
        "url": link,
    }
    body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items() if value)
    key = re.sub(r"[^A-Za-z0-9-]", "", f"{model}-{said.sae_fingerprint[:8]}-feature-{feature}")
    return f"@misc{{{key},\n{body}\n}}\n"


def _tex(text: str) -> str:
    """Text as TeX sets it: its own characters quoted, braces in pairs whatever the text holds, one line."""
    spaced = " ".join(text.split())
    return re.sub(r"[\\{}$&#%_~^]", lambda m: _SPECIAL.get(m[0], "\\" + m[0]), spaced)
