"""The read API without a browser: every route keeps its own description, and no request makes it stumble."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
from starlette.testclient import TestClient

from app import resources
from app.api import PREFIX, Api, asking, live
from app.api.describing import document
from app.api.routes import PATH, ROUTES, Route
from app.api.serving import LARGEST_BODY
from app.api.shapes import check
from app.settings import MOST_SLIDERS
from explorer import meaning
from explorer.cache import Cache
from explorer.comparing import Compared
from explorer.errors import ExplorerError
from explorer.model import DTYPE_VARIABLE
from explorer.search import search
from tests.helpers_cache import HOSTILE
from tests.helpers_lab import comparison
from tests.helpers_steer import tiny_world
from tests.test_meaning import Letters

ONE = f"{PREFIX}/caches/tiny"
GREEDY = {"temperature": 0.0, "max_tokens": 6, "repetition_penalty": 1.0}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[Cache]:
    """A tiny model with its cache, and nothing else."""
    place = tmp_path_factory.mktemp("api")
    folder = tiny_world(place, layers=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERSONA_EXPLORER_HOME", str(place / "home"))
        patch.setenv("PERSONA_EXPLORER_CACHES", str(folder))
        patch.setenv("PERSONA_EXPLORER_WARMUP", "0")
        patch.setenv(DTYPE_VARIABLE, "float32")
        patch.setattr(resources, "ROOT", place / "elsewhere")
        yield Cache.open(folder)
        for cached in (resources._open, resources._labels, resources._engine):
            cached.clear()


@pytest.fixture(scope="module")
def client(world) -> TestClient:
    return TestClient(Api())


@pytest.fixture(scope="module")
def loaded(client) -> TestClient:
    """The same, with the model there."""
    engine = resources.engine("tiny")
    engine.start()
    assert engine.wait(300)
    return client


def address(route: Route) -> str:
    path = PREFIX + route.path.replace("{cache}", "tiny").replace("{feature}", "12")
    return f"{path}?{route.example}" if isinstance(route.example, str) and route.example else path


def events(text: str) -> list[tuple[str, Any]]:
    lines = [block.split("\n") for block in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in lines]


def refused(answer: Any, status: int) -> dict[str, str]:
    """An error as every error is: this status, and found / expected / do."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"found", "expected", "do"}
    assert error["found"]
    return error


def test_while_the_model_loads_the_answer_is_come_again(client, monkeypatch):
    engine = resources.engine("tiny")
    began = []
    monkeypatch.setattr(engine, "start", lambda: began.append(1))
    answer = client.post(f"{ONE}/activations", json={"text": "king"})
    assert "being loaded" in refused(answer, 503)["found"]
    assert answer.headers["Retry-After"]
    assert began


@pytest.mark.parametrize("route", [r for r in ROUTES if r.method == "GET"], ids=lambda r: r.path)
def test_every_answer_is_what_its_route_describes(client, route):
    answer = client.get(address(route))
    assert answer.status_code == 200, answer.text
    jsonschema.validate(answer.json(), route.answer)


def test_the_document_lists_the_routes_and_nothing_else(client):
    said = client.get(f"{PREFIX}/openapi.json").json()
    assert said == document()
    assert {(path, method) for path, of in said["paths"].items() for method in of} == {
        (route.path, route.method.lower()) for route in ROUTES
    }
    names = [operation["operationId"] for of in said["paths"].values() for operation in of.values()]
    assert len(set(names)) == len(ROUTES)
    for route in ROUTES:
        operation = said["paths"][route.path][route.method.lower()]
        asked = {parameter["name"] for parameter in operation["parameters"]}
        assert asked == {name for name in PATH if f"{{{name}}}" in route.path} | route.query.keys()
        for schema in filter(None, (route.answer, route.body, *route.query.values(), *route.events.values())):
            jsonschema.Draft202012Validator.check_schema(schema)


def test_the_page_for_people_lists_every_route_and_runs_nothing(client):
    page = client.get("/api")
    assert page.headers["content-type"].startswith("text/html")
    assert all(f"{PREFIX}{route.path}" in page.text for route in ROUTES)
    assert "<script" not in page.text
    assert "://" not in page.text.replace("http://testserver", "")


def test_features_are_filtered_and_sorted_as_the_library_does(client, world):
    said = client.get(
        f"{ONE}/features?query=king&sort=max&order=up&min_density=0.01&status=live&limit=5&offset=1"
    ).json()
    page = search(world, query="king", sort="max", descending=False, min_density=0.01, status="live", limit=5, offset=1)
    assert said["total"] == page.total
    assert [row["feature"] for row in said["rows"]] == [row.index for row in page.rows]


def test_what_people_and_a_fine_tune_say_of_features_filters_both_routes(client, world):
    sae, store = world.manifest.sae_fingerprint, resources.labels()
    store.put(sae, 3, "kings", "as in chess", author="ana")
    store.put(sae, 7, "kings", author="ben")
    resources.remarks().tag(sae, 7, "royal", author="ana")
    resources.remarks().comment(sae, 3, "too wide", author="ben")
    resources.lists().add(sae, "mine", (3, 5), author="ana")
    change = Compared(comparison(world.path, n_features=world.n_features)).change("own", "answer")
    most = world.table.column("max").to_numpy()
    expected = {
        "author=ana": {3},
        "tag=Royal": {7},
        "remarked=commented": {3},
        "list=mine": {3, 5},
        "list=mine&author=ben": set(),
        "moved=mine": {f for f in range(world.n_features) if change.low[f] > 0},
        f"min_max={sorted(most)[20]}": {f for f in range(world.n_features) if most[f] >= sorted(most)[20]},
    }
    for asked, features in expected.items():
        said = client.get(f"{ONE}/features?limit=200&{asked}").json()
        assert {row["feature"] for row in said["rows"]} == features, asked
        held = {f for f in features if f in (3, 7)}
        named = client.get(f"{ONE}/search?q=kings&limit=200&status=labelled&{asked}").json()
        assert {row["feature"] for row in named["rows"]} == held, asked
    noted = client.get(f"{ONE}/search?q=chess").json()
    assert 3 in {row["feature"] for row in noted["rows"]}


def test_search_by_meaning_gives_the_nearest_first_and_says_what_to_do_without_vectors(client, world, monkeypatch):
    engine = resources.engine("tiny")
    monkeypatch.setattr(engine, "embedder", Letters)
    address = f"{ONE}/search?q=a+cruel+king&find=meaning&limit=200"
    lacking = refused(client.get(address), 404)
    assert "persona-explorer index" in lacking["do"]
    meaning.make(world, Letters())
    said = client.get(f"{address}&status=live")
    assert said.status_code == 200, said.text
    labels = {i: label.label for i, label in resources.labels().all(world.manifest.sae_fingerprint).items()}
    near = meaning.Meanings(world, Letters()).nearness("a cruel king", labels)
    expected = [int(f) for f in (-near).argsort(kind="stable") if world.feature(int(f)).max > 0]
    assert [row["feature"] for row in said.json()["rows"]] == expected
    assert live.PLACES.taken == 0
    refused(client.get(f"{ONE}/search?q=+&find=meaning"), 422)


def test_the_vector_is_the_decoder_row_of_the_loaded_autoencoder(client, world):
    from explorer.sae import SparseCoder

    coder = SparseCoder.load(world.sae_folder)
    said = client.get(f"{ONE}/features/7/vector").json()["vector"]
    assert said == pytest.approx(coder.direction(7).tolist(), abs=0)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("caches/nowhere", 404),
        ("caches/..%2f..%2fetc", 404),
        ("caches/tiny/features/24", 404),
        ("caches/tiny/features/-1", 422),
        ("caches/tiny/features/1e3", 422),
        ("caches/tiny/features/" + "9" * 400, 422),
        ("caches/tiny/features?sort=nonsense", 422),
        ("caches/tiny/features?min_density=nan", 422),
        ("caches/tiny/features?limit=201", 422),
        ("caches/tiny/features?limit=5&limit=6", 422),
        ("caches/tiny/features?nonsense=1", 422),
        ("caches/tiny/search", 422),
        ("caches/tiny/search?q=", 422),
        ("caches/tiny/search?q=x&find=nonsense", 422),
        ("caches/tiny/search?q=x&list=nowhere", 422),
        ("caches/tiny/features?moved=../nowhere", 422),
        ("caches/tiny/features?remarked=liked", 422),
        ("caches/nowhere/search?q=x&find=meaning", 404),
        ("nowhere", 404),
    ],
)
def test_a_wrong_address_is_refused_in_words(client, path, status):
    refused(client.get(f"{PREFIX}/{path}"), status)


def test_another_method_is_told_which_one_there_is(client):
    answer = client.delete(f"{PREFIX}/caches")
    refused(answer, 405)
    assert answer.headers["Allow"] == "GET, HEAD"
    refused(client.get(f"{ONE}/steer"), 405)


@pytest.mark.parametrize(
    ("sent", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff\xfe\x00", "application/json", 400),
        (b'{"text": NaN}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"[]", "application/json", 422),
        (b'{"text": 7}', "application/json", 422),
        (b'{"text": "x", "limit": 0}', "application/json", 422),
        (b'{"text": "x", "limit": true}', "application/json", 422),
        (b'{"text": "x", "limit": ' + b"9" * 999 + b"}", "application/json", 422),
        (b'{"text": "x", "nonsense": 1}', "application/json", 422),
        (b'{"text": "\\ud800"}', "application/json", 422),
        (b'{"text": "x", "messages": []}', "application/json", 422),
        (b'{"text": " "}', "application/json", 422),
        (b'{"messages": [{"role": "king", "content": "x"}]}', "application/json", 422),
        (b'{"text": "x"}', "text/plain", 415),
        (b'{"text": "x"}', "", 415),
        (b'"' + b"x" * LARGEST_BODY + b'"', "application/json", 413),
    ],
)
def test_a_wrong_body_is_refused_in_words(client, sent, kind, status):
    refused(client.post(f"{ONE}/activations", content=sent, headers={"Content-Type": kind}), status)


@pytest.mark.parametrize("value", [None, True, 0, -1, 1.5, 3.0, "", "x", "add", [], [1], {}, {"a": 1}, 10**30])
def test_requests_are_checked_as_json_schema_says(value):
    for route in ROUTES:
        for schema in (*route.query.values(), *((route.body or {}).get("properties", {}).values())):
            right = jsonschema.Draft202012Validator(schema).is_valid(value)
            try:
                check(value, schema, "value")
                assert right, schema
            except ExplorerError:
                assert not right, schema


def test_activations_are_those_that_the_app_shows(loaded):
    text = "The king lost his crown."
    answer = loaded.post(f"{ONE}/activations", json={"text": text, "limit": 3, "by": "total"})
    assert answer.status_code == 200, answer.text
    route = next(r for r in ROUTES if r.path.endswith("/activations"))
    jsonschema.validate(answer.json(), route.answer)
    said = answer.json()
    assert len(said["features"]) == 3
    for one in said["features"]:
        shown = resources.engine("tiny").activations(text, one["feature"])
        assert [token["id"] for token in said["tokens"]] == list(shown.tokens)
        assert said["scored"] == list(shown.scored)
        assert one["values"] == pytest.approx(shown.acts, abs=1e-4)
    chat = loaded.post(f"{ONE}/activations", json={"messages": [{"role": "user", "content": "king"}]}).json()
    assert chat["tokens"][0]["text"] == "<|im_start|>"


@pytest.mark.parametrize("text", [raw.decode() for raw in HOSTILE])
def test_hostile_text_is_text(loaded, text):
    answer = loaded.post(f"{ONE}/activations", json={"text": text, "limit": 1})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.text.isascii()
    assert loaded.get(f"{ONE}/search", params={"q": text}).status_code == 200


def steered(client: TestClient, **body: Any) -> list[tuple[str, Any]]:
    answer = client.post(f"{ONE}/steer", json={"prompt": "king", "sampling": GREEDY, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return events(answer.text)


def test_a_steered_answer_comes_in_pieces_that_make_up_both_answers(loaded):
    from explorer.records import Edit, Sampling

    route = next(r for r in ROUTES if r.path.endswith("/steer"))
    came = steered(loaded, edits=[{"feature": 3, "strength": 2}])
    for name, data in came:
        jsonschema.validate(data, route.events[name])
    pieces = [data for name, data in came if name == "piece"]
    assert [piece["step"] for piece in pieces] == list(range(len(pieces)))
    name, done = came[-1]
    assert name == "done"
    sampling = Sampling(max_tokens=6, temperature=0.0, repetition_penalty=1.0)
    engine = resources.engine("tiny")
    expected = list(engine.stream([{"role": "user", "content": "king"}], [Edit(3, 2.0)], sampling))
    for at, which in enumerate(("baseline", "steered")):
        assert done[which]["text"] == "".join(step[at] or "" for step in expected)
        assert "".join(piece[which] or "" for piece in pieces) == done[which]["text"]
    assert done["baseline"]["text"] != done["steered"]["text"]


def test_what_the_judges_say_of_both_answers_comes_last(loaded, monkeypatch):
    def score(texts: Any, prompt: str) -> dict[str, list[float]]:
        time.sleep(0.2)  # they take longer than the last word
        return {"courage": [len(text) / 1000 for text in texts], prompt: [0.5] * len(texts)}

    monkeypatch.setattr(resources.engine("tiny"), "score", score)
    *_, (name, done), (last, said) = steered(loaded, edits=[{"feature": 3, "strength": 2}])
    assert (name, last) == ("done", "scores")
    assert said == {at: {"courage": len(done[at]["text"]) / 1000, "king": 0.5} for at in ("baseline", "steered")}
    jsonschema.validate(said, asking.EVENTS[last])


def test_judges_that_fail_take_no_answer_with_them(loaded, monkeypatch):
    def score(texts: Any, prompt: str) -> dict[str, list[float]]:
        raise RuntimeError("no memory")

    monkeypatch.setattr(resources.engine("tiny"), "score", score)
    assert steered(loaded)[-1][0] == "done"


@pytest.mark.parametrize(
    "body",
    [
        {"edits": [{"feature": 24}]},
        {"edits": [{"feature": 1, "strength": 99}]},
        {"edits": [{"feature": 1, "direction": "malice"}]},
        {"edits": [{"direction": "nowhere"}]},
        {"edits": [{"direction": "../x"}]},
        {"edits": [{}]},
        {"edits": [{"feature": 1}] * (MOST_SLIDERS + 1)},
        {"model": "nowhere"},
        {"sampling": {"max_tokens": 10**6}},
        {"prompt": " "},
        {"messages": [{"role": "user", "content": "x"}]},
        {"positions": "nowhere"},
    ],
)
def test_a_question_that_makes_no_sense_is_refused_before_it_begins(loaded, body):
    refused(loaded.post(f"{ONE}/steer", json={"prompt": "king", **body}), 422)
    assert live.PLACES.taken == 0


def test_two_clients_at_once_get_what_each_would_get_alone(loaded):
    alone = [steered(loaded, edits=[{"feature": feature, "strength": 2}])[-1][1] for feature in (3, 7)]
    with ThreadPoolExecutor(2) as both:
        company = list(both.map(lambda f: steered(loaded, edits=[{"feature": f, "strength": 2}])[-1][1], (3, 7)))
    for one, other in zip(alone, company, strict=True):
        assert one["steered"] == other["steered"]


def test_more_requests_than_there_are_places_are_told_to_come_again(loaded, monkeypatch):
    monkeypatch.setattr(live.PLACES, "taken", live.PLACES.most)
    for path, body in (("steer", {"prompt": "king"}), ("activations", {"text": "king"})):
        answer = loaded.post(f"{ONE}/{path}", json=body)
        refused(answer, 503)
        assert answer.headers["Retry-After"]


def test_a_place_is_given_back_however_a_request_ends(loaded):
    steered(loaded)
    loaded.post(f"{ONE}/activations", json={"text": "king"})
    until = time.monotonic() + 10
    while live.PLACES.taken and time.monotonic() < until:
        time.sleep(0.01)
    assert live.PLACES.taken == 0
