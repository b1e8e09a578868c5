import numpy as np
import pytest
import torch

from explorer.corpus import chunks
from explorer.errors import CorpusError, ModelError
from explorer.evidence import REASONS, EvidenceReader, count
from explorer.records import Document
from explorer.windows import Windows


class Lengths:
    """A stand-in for a model: the residual stream of token id t has norm t."""

    name, max_length = "lengths", 64

    def activations(self, ids: torch.Tensor, hook: str) -> torch.Tensor:
        assert hook == "here"
        return torch.stack([ids.float(), torch.zeros(ids.shape)], -1)


def table(*documents: list[int]) -> Windows:
    return Windows.join(list(chunks([Document(tuple(d), ((0, len(d)),), "") for d in documents], frozenset({7}))))


def test_sinks_are_left_out_and_counted() -> None:
    windows = table([10, 10, 31, 7, 10], [10, 500, 30, 10])
    reader = EvidenceReader(Lengths(), "here")
    places, resid = zip(*reader.read(windows), strict=True)
    assert reader.median_norm == 20.0  # of 10, 31, 10, 500, 30, 10
    assert sorted(np.concatenate(places).tolist()) == [1, 2, 4, 7, 8]
    assert torch.cat(resid)[:, 0].tolist() == windows.tokens[np.concatenate(places)].tolist()
    assert count(windows) == {"first": 2, "special": 1, "template": 0, "sink": 1}
    assert sum(count(windows).values()) + 5 == len(windows.tokens)


def test_the_median_is_estimated_once() -> None:
    reader = EvidenceReader(Lengths(), "here", median_norm=1.0)
    assert not sum(len(place) for place, _ in reader.read(table([1, 10, 10])))
    assert reader.median_norm == 1.0


def test_a_corpus_without_evidence_is_refused() -> None:
    with pytest.raises(CorpusError, match="No token of the corpus counts as evidence"):
        list(EvidenceReader(Lengths(), "here").read(table([7], [7, 7])))


def test_every_reason_is_explained() -> None:
    assert all(text.endswith(".") for text in REASONS.values())


def test_a_window_longer_than_the_models_context_is_refused() -> None:
    with pytest.raises(CorpusError, match="at most 64"):
        list(EvidenceReader(Lengths(), "here", median_norm=1.0).read(table([1] * 65)))  # pyright: ignore[reportArgumentType]


def test_activations_that_overflow_are_refused() -> None:
    class Overflow(Lengths):
        def activations(self, ids: torch.Tensor, hook: str) -> torch.Tensor:
            return super().activations(ids, hook) * float("inf")

    with pytest.raises(ModelError, match="float32"):
        list(EvidenceReader(Overflow(), "here", median_norm=1.0).read(table([1, 2, 3])))  # pyright: ignore[reportArgumentType]
