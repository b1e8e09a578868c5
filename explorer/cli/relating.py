"""Commands that relate features: a map of them, their counterparts in another SAE, and labels offered to those."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from explorer.cli import labelling
from explorer.cli.console import JSON, CachePath, emit_json, facts, progress, table

if TYPE_CHECKING:
    from explorer.cache import Cache
    from explorer.label_files import Label

OtherPath = Annotated[Path, typer.Argument(help="A cache of the same model and hook point with another SAE.")]


def register(app: typer.Typer) -> None:
    app.command("map")(make_map)
    app.command("counterparts")(find_counterparts)
    labelling.app.command("transfer")(transfer)


def make_map(
    cache: CachePath,
    seed: Annotated[int, typer.Option(help="Of the layout.")] = 0,
    as_json: JSON = False,
) -> None:
    """Lay the features out in two dimensions by their decoder directions, for the Map page."""
    from explorer.cache import Cache
    from explorer.mapping import load, make

    opened = Cache.open(cache)
    with progress("laying out") as tick:
        tick(f"laying {opened.n_features:,} features out", None)
        path = make(opened, seed=seed)
    made = load(opened)
    assert made is not None
    result = {"file": str(path), "features": opened.n_features, "method": made.facts.method, "seed": seed}
    if as_json:
        emit_json(result)
    else:
        facts("Map", list(result.items()))


def find_counterparts(
    cache: CachePath,
    other: OtherPath,
    feature: Annotated[int | None, typer.Option(help="Only of this feature.")] = None,
    k: Annotated[int, typer.Option("--best", "-k", help="How many for each feature.", min=1)] = 3,
    as_json: JSON = False,
) -> None:
    """Say which features of another SAE point as those of this one do, by the cosine of their decoder directions."""
    from explorer.cache import Cache
    from explorer.counterparts import Counterpart, best, counterparts, require_same_place
    from explorer.decoder import decoder

    a, b = Cache.open(cache), Cache.open(other)
    require_same_place(a, b)
    if feature is not None:
        found = {feature: counterparts(a, b, feature, k)}
    else:
        rows = zip(*(part.tolist() for part in best(decoder(a), decoder(b), k)), strict=True)
        found = {i: [Counterpart(*one) for one in zip(*row, strict=True)] for i, row in enumerate(rows)}
    if as_json:
        emit_json(
            [
                {"feature": i, "counterpart": one.feature, "cosine": round(one.cosine, 4), "mutual": one.mutual}
                for i, some in found.items()
                for one in some
            ]
        )
        return
    here, there = _called(a), _called(b)
    lines = [
        (i, here(i), one.feature, there(one.feature), f"{one.cosine:.3f}", "yes" if one.mutual else "")
        for i, some in found.items()
        for one in some
    ]
    head = ("feature", f"in {a.name}", "counterpart", f"in {b.name}", "cosine", "each other's best")
    table(f"{a.name} and {b.name}", head, lines, right=("feature", "counterpart", "cosine"))


def transfer(
    source: Annotated[Path, typer.Argument(help="The cache whose features are labelled.")],
    target: Annotated[Path, typer.Argument(help="The cache whose features are offered the labels.")],
    threshold: Annotated[float, typer.Option(help="Least cosine of the two decoder directions.")] = 0.7,
    dry: Annotated[bool, typer.Option("--plan", help="Only say what would be offered.")] = False,
    database: labelling.Database = "",
    as_json: JSON = False,
) -> None:
    """Offer labels to the counterparts of their features in another SAE, as suggestions; no label is moved."""
    from explorer.cache import Cache
    from explorer.counterparts import suggested
    from explorer.database import Database
    from explorer.suggestions import Suggestions

    a, b = Cache.open(source), Cache.open(target)
    said = suggested(a, b, _labels(a, database), threshold=threshold)
    added = 0 if dry else Suggestions(Database(database) if database else None).add(said)
    if as_json:
        rows = [
            {"feature": one.feature, "label": one.text, "cosine": one.score, "source": one.source, **one.details}
            for one in said
        ]
        emit_json({"found": len(said), "added": added, "suggestions": rows})
        return
    what = "would be offered" if dry else f"are offered, {added:,} of them new"
    lines = [
        (one.feature, one.text, one.details["feature"], f"{one.score:.3f}", "yes" if one.details["mutual"] else "")
        for one in said
    ]
    head = ("feature", "label", f"feature of {a.name}", "cosine", "each other's best")
    table(f"{len(said):,} labels {what} to {b.name}", head, lines, right=("feature", "cosine"))


def _labels(cache: "Cache", database: str = "") -> "dict[int, Label]":
    from explorer.labels import LabelStore

    return LabelStore.over(cache, database or None).all(cache.manifest.sae_fingerprint)


def _called(cache: "Cache"):
    """A function from a feature to its label, or its own words in brackets."""
    labels, titles = _labels(cache), cache.table.column("title")

    def name(feature: int) -> str:
        label = labels.get(feature)
        return label.label if label and label.label else f"({titles[feature].as_py() or ''})"

    return name
