"""Commands that find features: search by words or meaning, inspect a text, contrast two sets of texts, and what they need made once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from explorer.cli.console import (
    JSON,
    CacheModel,
    CachePath,
    Device,
    Dtype,
    Remarked,
    Tag,
    emit_json,
    plain,
    progress,
    table,
)
from explorer.errors import UsageError

if TYPE_CHECKING:
    from explorer.cache import Cache
    from explorer.inspecting import Inspected
    from explorer.live import Live
    from explorer.records import Document


def register(app: typer.Typer) -> None:
    app.command()(search)
    app.command("inspect")(inspect_text)
    app.command("contrast")(contrast_texts)
    app.command("index")(make_index)


def search(
    cache: CachePath,
    query: Annotated[
        str, typer.Argument(help="Words of labels, notes, titles, promoted tokens or examples; a number; or nothing.")
    ] = "",
    meaning: Annotated[bool, typer.Option("--meaning", help="Find what is near the query's meaning.")] = False,
    sort: Annotated[str, typer.Option(help="The column to sort by; match by default where there is a query.")] = "",
    ascending: Annotated[bool, typer.Option("--ascending", help="Smallest first.")] = False,
    min_density: Annotated[float, typer.Option(help="Share of scored tokens, 0 to 1.", min=0, max=1)] = 0.0,
    max_density: Annotated[float, typer.Option(help="Share of scored tokens, 0 to 1.", min=0, max=1)] = 1.0,
    min_max: Annotated[float, typer.Option(help="Least maximum, in SAE units.", min=0)] = 0.0,
    status: Annotated[str, typer.Option(help="all, labelled, unlabelled, dead or live.")] = "all",
    author: Annotated[str, typer.Option(help="Only what this person labelled.")] = "",
    from_list: Annotated[str, typer.Option("--list", help="Only the features of this list.")] = "",
    tag: Tag = "",
    remarked: Remarked = "",
    moved: Annotated[str, typer.Option(help="Only what rose in this comparison with a fine-tune.")] = "",
    limit: Annotated[int, typer.Option(help="Rows to print.", min=1)] = 25,
    offset: Annotated[int, typer.Option(help="Rows to skip.", min=0)] = 0,
    as_json: JSON = False,
) -> None:
    """Find features by their words, labels and examples, or by meaning."""
    from dataclasses import asdict

    from explorer.among import among
    from explorer.cache import Cache
    from explorer.comparing import risen
    from explorer.labels import LabelStore
    from explorer.search import search as find

    opened = Cache.open(cache)
    store = LabelStore.over(opened)
    said = store.all(opened.manifest.sae_fingerprint)
    labels = {i: label.label for i, label in said.items()}
    found = find(
        opened,
        query=query,
        sort=sort or ("match" if query else "density"),
        descending=not ascending,
        min_density=min_density,
        max_density=max_density,
        min_max=min_max,
        status=status,
        labels=labels,
        notes={i: label.note for i, label in said.items() if label.note},
        only=among(
            opened,
            store,
            said,
            author=author,
            listed=from_list,
            tag=tag,
            remarked=remarked,
            moved=risen(opened.path, moved) if moved else None,
        ),
        nearness=_nearness(opened, query, labels) if meaning else None,
        limit=limit,
        offset=offset,
    )
    if as_json:
        emit_json({"total": found.total, "rows": [asdict(row) for row in found.rows]})
        return
    rows = [
        (
            r.index,
            r.label or f"({r.title})",
            f"{r.density:.3%}",
            f"{r.max:.2f}",
            " ".join(w.strip() for w in r.promoted[:5]),
        )
        for r in found.rows
    ]
    first = f"{offset + 1} to {offset + len(rows)} of " if rows else ""
    title = f"{opened.name}: {first}{found.total:,} features"
    table(
        title,
        ("feature", "label (or own words)", "density", "max", "promotes"),
        rows,
        right=("feature", "density", "max"),
    )


def _nearness(cache: "Cache", query: str, labels: dict[int, str]) -> Any:
    from explorer.embedding import Embedder
    from explorer.meaning import Meanings

    if not query.strip():
        raise UsageError("There is nothing to find by meaning", expected="some words", do="Give a query")
    return Meanings(cache, Embedder.load()).nearness(query, labels)


def make_index(cache: CachePath, as_json: JSON = False) -> None:
    """Make what a cache's features are found with by meaning: a vector each, once, with the sentence embedder."""
    from explorer.cache import Cache
    from explorer.embedding import Embedder
    from explorer.meaning import make
    from explorer.word_index import index

    opened = Cache.open(cache)
    index(opened)  # kept on disk where it takes long to make
    with progress("reading labels and examples") as tick:
        path = make(opened, Embedder.load(), tick)
    if as_json:
        emit_json({"file": str(path), "features": opened.n_features, "bytes": path.stat().st_size})
    else:
        print(path)


def inspect_text(
    cache: CachePath,
    text: Annotated[str, typer.Argument(help="A text; or - for standard input.")],
    chat: Annotated[
        bool, typer.Option("--chat", help="Read it as a conversation: Human:/Assistant: turns or JSON messages.")
    ] = False,
    by: Annotated[str, typer.Option(help="max, mean, total, or share (of the usual maximum).")] = "max",
    unweighted: Annotated[bool, typer.Option("--unweighted", help="Do not let what is always on sink.")] = False,
    max_density: Annotated[float, typer.Option(help="Leave out features that fire more often.", min=0, max=1)] = 1.0,
    limit: Annotated[int, typer.Option(help="Rows to print.", min=1)] = 20,
    model: CacheModel = "",
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Say which features a text fires, strongest first, and on which of its tokens."""
    from dataclasses import asdict

    from explorer.cache import Cache
    from explorer.inspecting import rank
    from explorer.live import attach

    opened = Cache.open(cache)
    said = typer.get_text_stream("stdin").read() if text == "-" else text
    live = attach(opened, model=model, device=device, dtype=dtype)
    found = _read(opened, live, _document(live, said, chat))
    fired = rank(found, opened, by=by, weighted=not unweighted, limit=limit, max_density=max_density)
    names = _names(opened)
    if as_json:
        tokens = [opened.vocabulary.piece(token) for token in found.tokens]
        rows = [{**asdict(one), "label": names[one.feature], "activations": found.of(one.feature)} for one in fired]
        emit_json({"tokens": tokens, "scored": found.scored, "features": rows})
        return
    rows = []
    for one in fired:
        acts = [value if counts else 0.0 for value, counts in zip(found.of(one.feature), found.scored, strict=True)]
        word = plain(opened.vocabulary.piece(found.tokens[max(range(len(acts)), key=acts.__getitem__)]))
        share = "–" if one.share != one.share else f"{one.share:.0%}"
        rows.append((one.feature, names[one.feature], f"{one.max:.2f}", share, word, one.tokens, f"{one.rarity:.2f}"))
    table(
        f"{opened.name}: features on {sum(found.scored):,} tokens",
        ("feature", "label (or own words)", "max", "of usual", "on", "tokens", "rarity"),
        rows,
        right=("feature", "max", "of usual", "tokens", "rarity"),
    )


def contrast_texts(
    cache: CachePath,
    left: Annotated[Path, typer.Argument(help="A text file: a text a line.")],
    right: Annotated[Path, typer.Argument(help="The same of the other kind.")],
    how: Annotated[str, typer.Option("--pool", help="What stands for a text: max or mean.")] = "max",
    limit: Annotated[int, typer.Option(help="Features to pick.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of splits and shuffles.")] = 0,
    model: CacheModel = "",
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: JSON = False,
) -> None:
    """Say which features are higher in one set of texts than in another, and whether that holds on texts held out."""
    from dataclasses import asdict

    from explorer.cache import Cache
    from explorer.contrast import contrast, pooled
    from explorer.live import attach

    opened = Cache.open(cache)
    texts = [[line for line in _lines(path) if line.strip()] for path in (left, right)]
    live = attach(opened, model=model, device=device, dtype=dtype)
    sides = []
    with progress("reading the texts") as tick:
        for side in texts:
            read = []
            for line in side:
                read.append(_read(opened, live, live.model.text_document(line)))
                tick(len(read), len(side))
            sides.append(pooled(read, how) if read else [])
    found = contrast(*sides, limit=limit, seed=seed)
    names = _names(opened)
    if as_json:
        emit_json({**asdict(found), "rows": [{**asdict(r), "label": names[r.feature]} for r in found.rows]})
        return

    def shown(value: float, form: str = ".2f") -> str:
        return "–" if value != value else format(value, form)

    table(
        f"{opened.name}: {found.n_left} texts against {found.n_right}; best pick on held-out texts: AUROC {shown(found.best_held_out)}",
        ("feature", "label (or own words)", "AUROC", "held out", "picked", "effect", "by luck", "left", "right"),
        [
            (
                r.feature, names[r.feature], f"{r.auroc:.2f}", shown(r.held_out), shown(r.picked, ".0%"), shown(r.effect, "+.1f"),
                f"{r.chance:.1%}", f"{r.left:.2f}", f"{r.right:.2f}",
            )
            for r in found.rows
        ],
        right=("feature", "AUROC", "held out", "picked", "effect", "by luck", "left", "right"),
    )  # fmt: skip


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text in UTF-8", expected="a text a line", do="Convert it") from error


def _document(live: "Live", text: str, chat: bool) -> "Document":
    from explorer.transcripts import as_chat, conversation

    if not chat:
        return live.model.text_document(text)
    return live.model.chat_document(as_chat(conversation(text)))


def _read(cache: "Cache", live: "Live", document: "Document") -> "Inspected":
    from explorer.inspecting import inspect

    return inspect(live.model, live.coder, document, cache.manifest.sink_factor * cache.manifest.median_norm)


def _names(cache: "Cache") -> list[str]:
    """What each feature is called: its label, else its own words in brackets."""
    from explorer.labels import LabelStore

    store = LabelStore.over(cache)
    said, titles = store.texts(cache.manifest.sae_fingerprint), cache.table.column("title").to_pylist()
    return [said.get(i) or f"({title or ''})" for i, title in enumerate(titles)]
