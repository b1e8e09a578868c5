"""Caches made from other programs' files: what stands for fingerprints there, and why nothing live can be done with them.

Such files hold what features did, and neither the weights of the model nor those of the SAE. So the place of a fingerprint is taken by
a hash of the names, marked as such: labels and lists stay with the SAE that they were made for, and no loaded weights ever match it.
"""

import hashlib

from explorer.errors import SaeError
from explorer.schema import Manifest

MARK = "foreign-"
"""What begins every fingerprint that no weights were read for."""


def name_fingerprint(*names: str) -> str:
    """What stands for the fingerprint of something that is known by its names alone."""
    return MARK + hashlib.sha256("/".join(names).encode()).hexdigest()


def is_foreign(manifest: Manifest) -> bool:
    """Whether a cache was made from another program's files."""
    return manifest.sae_fingerprint.startswith(MARK)


def require_weights(manifest: Manifest) -> None:
    """Refuse to read or steer live with a cache that was made from another program's files.

    Raises:
        SaeError: Saying why, if it is one.
    """
    if is_foreign(manifest):
        raise SaeError(
            f"This cache was made from files about {manifest.model}, {manifest.sae}, which hold no weights: it can be browsed and "
            "labelled, not steered or read live",
            expected="a cache that was built with the model and the SAE themselves",
            do="Build one with persona-explorer build",
        )
