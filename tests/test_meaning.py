"""Finding features by meaning: cosines of the embedder's own vectors, and files that do not fit are refused."""

from pathlib import Path

import numpy as np
import pytest

from explorer.cache import Cache
from explorer.errors import CacheError
from explorer.meaning import MEANINGS, WIDTH, Meanings, make, sentence_vectors, texts_of
from tests.helpers_cache import fake_cache


class Letters:
    """An embedder that counts letters, behind a layer of noise that must not be read."""

    fingerprint = "letters"

    def encode(self, texts):
        found = np.zeros((len(texts), WIDTH * 2), np.float32)
        for row, text in enumerate(texts):
            found[row, :WIDTH] = 1e6
            for letter in text.lower():
                found[row, WIDTH + ord(letter) % WIDTH] += 1
        return found


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    cache = Cache.open(fake_cache(tmp_path / "made-up", 40))
    make(cache, Letters())
    return cache


def cosine(a: str, b: str) -> float:
    one, other = sentence_vectors(Letters(), [a, b])
    return float(one @ other)


def test_nearness_is_the_cosine_with_each_features_own_texts(cache: Cache):
    near = Meanings(cache, Letters()).nearness("a cruel king", {})
    expected = [cosine("a cruel king", text) for text in texts_of(cache)]
    np.testing.assert_allclose(near, expected, atol=0.02)  # eight bits a number
    assert near.std() > 0.01


def test_a_label_that_is_nearer_than_the_own_words_counts(cache: Cache):
    meanings = Meanings(cache, Letters())
    before = meanings.nearness("zebra", {})
    after = meanings.nearness("zebra", {7: "zebra", 8: "qqqq", 99: "zebra"})
    assert after[7] == pytest.approx(1.0)
    assert after[8] == before[8]
    assert np.delete(after, 7).tolist() == np.delete(before, 7).tolist()


def test_a_query_without_words_is_near_nothing(cache: Cache):
    assert not Meanings(cache, Letters()).nearness("  ", {}).any()


def test_without_vectors_the_command_that_makes_them_is_named(cache: Cache):
    (cache.path / MEANINGS).unlink()
    with pytest.raises(CacheError, match="persona-explorer index"):
        Meanings(cache, Letters())


def test_vectors_of_another_embedder_or_of_other_texts_are_refused(cache: Cache, tmp_path: Path):
    class Other(Letters):
        fingerprint = "other"

    with pytest.raises(CacheError, match="another embedder"):
        Meanings(cache, Other())
    other = Cache.open(fake_cache(tmp_path / "other", 40, seed=1))
    (other.path / MEANINGS).write_bytes((cache.path / MEANINGS).read_bytes())
    with pytest.raises(CacheError, match="other texts"):
        Meanings(other, Letters())


def test_a_damaged_file_is_refused_in_words(cache: Cache):
    (cache.path / MEANINGS).write_bytes(b"no vectors")
    with pytest.raises(CacheError, match="cannot be read"):
        Meanings(cache, Letters())


def test_progress_is_told_to_the_end(cache: Cache):
    told = []
    make(cache, Letters(), lambda done, all: told.append((done, all)))
    assert told[-1] == (40, 40)
