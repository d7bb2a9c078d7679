"""Every address of the API: what it answers, and what it says when it cannot."""

import json
import shutil
from urllib.parse import quote

import polars as pl
import pytest
from starlette.testclient import TestClient
from tests.serving.servers import JSON, LOCAL, backend_of

from langptune_rs.data import read_history
from langptune_rs.recommending.edits import Profile, Remove, Request, Rewrite, Weigh
from langptune_rs.runs.results import PROFILES
from langptune_rs.serving.app import make_app
from langptune_rs.serving.bodies import MAX_PARTS
from langptune_rs.serving.live_run import LoadedRun

TEXT = "Slow trains at night. And red dragons!"
ODD = [
    '<script>alert("1")</script> & <b>trains</b>',
    "<|im_start|>system<eos><pad>[CLS] trains<assistant>",
    "Медленные поезда. 遅い列車。 قطارات بطيئة 🚂🚃",
    "trains\u2028\u0007\x7f\u200b\ufeff'; DROP TABLE profile_versions; --",
]
"""Texts with HTML, control tokens, other languages, and signs that other programs take for something else."""


def ids(answer) -> list[str]:
    return [item["id"] for item in answer["items"]]


def test_what_is_served_is_told(client, service):
    answer = client.get("/v2/info").json()
    assert answer["num_items"] == len(service.catalog) == 40
    assert answer["num_users"] == 60
    assert answer["rating_scale"] == {"low": 0, "high": 5}
    assert answer["has_policy"]
    assert answer["model_version"] == service.run.version
    assert answer["limits"]["profile_characters"] == 4000
    assert client.get("/v2/health/live").json() == {"status": "alive"}
    assert client.get("/v2/health/ready").json() == {"status": "ready"}


def test_before_the_models_are_loaded_nothing_but_life_is_answered(served_run, tmp_path):
    backend = backend_of(served_run, tmp_path / "edits.sqlite")
    with TestClient(make_app(backend), base_url=LOCAL) as early:
        assert early.get("/v2/health/live").status_code == 200
        for address in ("/v2/health/ready", "/v2/info", "/v2/users", "/v2/users/u3"):
            answer = early.get(address)
            assert (answer.status_code, answer.json()["error_type"]) == (503, "loading")
            assert answer.headers["Retry-After"] == "1"


def test_users_are_found_by_the_beginning_of_their_ids(client):
    first = client.get("/v2/users", params={"prefix": "U1", "limit": 4}).json()
    assert (first["users"], first["total"]) == (["u1", "u10", "u11", "u12"], 11)
    assert client.get("/v2/users", params={"prefix": "u1", "limit": 4, "offset": 8}).json()["users"] == [
        "u17",
        "u18",
        "u19",
    ]
    assert client.get("/v2/users").json()["total"] == 60
    assert client.get("/v2/users", params={"prefix": "nobody"}).json()["users"] == []


def test_a_user_has_a_history_and_no_profile_at_first(client, service):
    answer = client.get("/v2/users/u7").json()
    items, ratings, _ = service.history_of("u7")
    assert [past["id"] for past in answer["history"]] == [service.catalog.item_ids[item] for item in items]
    assert [past["title"] for past in answer["history"]] == [service.catalog.titles[item] for item in items]
    assert [past["rating"] for past in answer["history"]] == ratings
    assert (answer["version"], answer["current"]) == (0, None)


@pytest.mark.parametrize(
    ("method", "address", "body"),
    [
        ("GET", "/v2/users/u3x", None),
        ("GET", "/v2/users/u3x/versions", None),
        ("GET", "/v2/users/u3x/profile/untrained", None),
        ("POST", "/v2/users/u3x/profile", {"expected_version": 0}),
        ("POST", "/v2/users/u3x/undo", {"expected_version": 0}),
        ("POST", "/v2/users/u3x/versions/1/restore", {"expected_version": 0}),
        ("PUT", "/v2/users/u3x/profile", {"expected_version": 0, "profile": {"text": TEXT}}),
        ("POST", "/v2/profile", {"user": "u3x"}),
        ("POST", "/v2/recommend", {"profile": {"text": TEXT}, "user": "u3x"}),
        ("GET", "/v2/popular?user=u3x", None),
    ],
)
def test_an_unknown_user_is_answered_with_the_nearest(client, method, address, body):
    answer = client.request(method, address, json=body)
    assert (answer.status_code, answer.json()["error_type"]) == (404, "unknown")
    assert "Did you mean 'u3', " in answer.json()["error"]


def test_recommended_are_the_items_of_the_service(client, service):
    body = {"profile": {"text": TEXT, "weights": {"And red dragons!": 0.5}, "requests": {"cats": -1}}, "k": 6}
    answer = client.post("/v2/recommend", json={**body, "user": "u7", "exclude": ["i1", "story 2 OF old kitchens"]})
    items = service.history_of("u7")[0]
    profile = Profile(TEXT, {"And red dragons!": 0.5}, {"cats": -1.0})
    expected = service.recommend(profile, 6, [*items, 1, 2])
    assert [(item["id"], item["title"]) for item in answer.json()["items"]] == [found[:2] for found in expected]
    assert [item["score"] for item in answer.json()["items"]] == pytest.approx([s for *_, s in expected], abs=1e-5)
    assert [item["rank"] for item in answer.json()["items"]] == [1, 2, 3, 4, 5, 6]
    assert [part["weight"] for part in answer.json()["profile"]["sentences"]] == [1, 0.5]


def test_all_that_is_left_can_be_recommended_and_no_more(client):
    body = {"profile": {"text": TEXT}, "user": "u7"}
    assert len(client.post("/v2/recommend", json={**body, "k": 36}).json()["items"]) == 36
    answer = client.post("/v2/recommend", json={**body, "k": 37})
    assert answer.status_code == 422
    assert "36 items" in answer.json()["error"]


def test_the_end_of_a_profile_that_is_not_read_is_told(client, service):
    text = "trains " * 300
    answer = client.post("/v2/recommend", json={"profile": {"text": text}})
    assert answer.json()["unread"] == service.unread(text) != ""


@pytest.mark.parametrize("by", ["sentence", "word"])
def test_an_explanation_is_that_of_the_service(client, service, by):
    answer = client.post("/v2/explain", json={"profile": {"text": TEXT}, "item": "i5", "user": "u7", "by": by}).json()
    items = service.history_of("u7")[0]
    expected = service.explain(TEXT, 5, items, by)
    assert (answer["item"]["id"], answer["item"]["rank"]) == ("i5", expected.rank)
    assert answer["num_ranked"] == 36
    assert [(part["text"], part["start"], part["end"]) for part in answer["parts"]] == [
        (effect.part.text, effect.part.start, effect.part.end) for effect in expected.parts
    ]
    for part, effect in zip(answer["parts"], expected.parts, strict=True):
        assert part["effect"] == pytest.approx(effect.effect, abs=1e-5)
        assert part["rank_without"] == effect.rank_without
    assert {past["id"] for past in answer["history"]} == {service.catalog.item_ids[item] for item in items}


def test_what_has_too_many_parts_is_not_explained(client):
    text = "a " * (MAX_PARTS + 1)
    answer = client.post("/v2/explain", json={"profile": {"text": text}, "item": "i5", "by": "word"})
    assert (answer.status_code, answer.json()["error_type"]) == (413, "too_large")
    assert f"{MAX_PARTS + 1} words" in answer.json()["error"]
    own = client.post("/v2/explain", json={"profile": {"text": TEXT}, "item": "i5", "exclude": ["i5"]})
    assert (own.status_code, "in the history" in own.json()["error"]) == (422, True)


@pytest.mark.parametrize(
    ("sent", "edit"),
    [
        ({"kind": "rewrite", "text": "Old kitchens."}, Rewrite("Old kitchens.")),
        ({"kind": "remove", "sentence": 1}, Remove(1)),
        ({"kind": "weigh", "sentence": 2, "weight": 3}, Weigh(2, 3.0)),
        ({"kind": "request", "text": "more cats", "weight": 2.0}, Request("more cats", 2.0)),
    ],
)
def test_every_edit_moves_items_as_the_service_says(client, service, sent, edit):
    answer = client.post(
        "/v2/steer", json={"profile": {"text": TEXT}, "edits": [sent], "k": 5, "exclude": ["i0"]}
    ).json()
    expected = service.steer(TEXT, edit, exclude=[0])
    name = service.catalog.item_ids.to_list().__getitem__
    assert ids({"items": answer["before"]}) == [name(item) for item in expected.before.items[:5]]
    assert ids({"items": answer["after"]}) == [name(item) for item in expected.after.items[:5]]
    assert answer["profile_after"]["text"] == expected.profile_after.text
    assert answer["profile_after"]["weights"] == dict(expected.profile_after.weights)
    assert answer["profile_after"]["requests"] == dict(expected.profile_after.requests)
    moves = expected.moves(5)
    assert [(move["id"], move["rank_before"], move["rank_after"], move["rise"]) for move in answer["moves"]] == [
        (name(move.item), move.rank_before, move.rank_after, move.rise) for move in moves
    ]
    shown = {*ids({"items": answer["before"]}), *ids({"items": answer["after"]})}
    assert {move["id"] for move in answer["moves"]} == shown


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"kind": "remove", "sentence": 3}, "no sentence 3"),
        ({"kind": "rewrite", "text": TEXT}, "changes nothing"),
        ({"kind": "rewrite", "text": "  "}, "empty"),
        ({"kind": "weigh", "sentence": 1, "weight": 6}, "less than or equal to 5"),
        ({"kind": "request", "text": "x", "weight": -6}, "greater than or equal to -5"),
        ({"kind": "sing"}, "'rewrite', 'remove', 'weigh', 'request'"),
    ],
)
def test_an_edit_that_cannot_be_made_is_named(client, edit, said):
    answer = client.post("/v2/steer", json={"profile": {"text": TEXT}, "edits": [edit]})
    assert answer.status_code == 422
    assert said in answer.json()["error"]


def test_the_policy_writes_for_a_user_and_for_a_history(client, service, tmp_path):
    answer = client.post("/v2/profile", json={"user": "u7"}).json()
    assert answer["profile"]["text"] == service.profile(*service.history_of("u7"))
    assert (answer["policy"], answer["source"]) == ("trained", "written")
    rows = [{"item_id": "i4", "rating": 2}, {"title": "Story 9 of slow trains", "review_text": "so calm"}]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    past = read_history(tmp_path / "history.jsonl", service.catalog)
    history = [{"item": "i4", "rating": 2}, {"item": "Story 9 of slow trains", "review": "so calm"}]
    assert client.post("/v2/profile", json={"history": history}).json()["profile"]["text"] == service.profile(*past)
    untrained = client.post("/v2/profile", json={"history": history, "policy": "untrained"}).json()
    assert untrained["profile"]["text"] == service.profile(*past, trained=False)
    assert untrained["policy"] == "untrained"


def test_the_policy_proposes_another_text(client, service):
    answer = client.post("/v2/propose", json={"text": TEXT, "instruction": "less dragons"}).json()
    assert answer["profile"]["text"] == service.propose(TEXT, "less dragons")


def test_a_profile_is_written_once_for_a_history(client, loaded, monkeypatch):
    history = [{"item": "i11", "rating": 3}, {"item": "i12"}]
    first = client.post("/v2/profile", json={"history": history}).json()
    monkeypatch.setattr(loaded.live.current.service, "profile", lambda *_, **__: pytest.fail("written again"))
    assert client.post("/v2/profile", json={"history": history}).json() == first
    other = client.post("/v2/profile", json={"history": history[:1]})
    assert other.status_code == 424


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"history": [{"item": "i99"}]}, 404, "Did you mean 'i9'?"),
        ({"history": [{"item": "i1", "rating": 6}]}, 422, "not from 0 to 5"),
        ({"history": []}, 422, "at least 1 item"),
        ({"history": [{"item": "i1"}], "user": "u3"}, 422, "either a user or a history"),
        ({}, 422, "either a user or a history"),
        ({"history": [{"item": f"i{i % 40}"} for i in range(101)]}, 413, "at most 100 items"),
        ({"history": [{"item": "i1", "review": "x" * 2001}]}, 413, "at most 2000 characters"),
        ({"history": [{"item": "i1", "review": "x" * 2000}]}, 413, "context of 2048"),
        ({"history": [{"item": "i1", "stars": 1}]}, 422, "stars"),
        ({"history": [{"item": "i1", "rating": "4"}]}, 422, "rating"),
        ({"user": "u3", "policy": "other"}, 422, "'trained' or 'untrained'"),
    ],
)
def test_a_history_that_cannot_be_read_is_named(client, body, status, said):
    answer = client.post("/v2/profile", json=body)
    assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text


def test_the_untrained_profile_comes_from_the_evaluation_where_there_is_one(served_run, tmp_path, client, service):
    text = service.profile(*service.history_of("u7"), trained=False)
    written = client.get("/v2/users/u7/profile/untrained").json()
    assert (written["profile"]["text"], written["source"], written["policy"]) == (text, "written", "untrained")
    run = shutil.copytree(served_run, tmp_path / "run")
    sessions = service.dataset.sessions
    session = int(sessions.session_ids[sessions.user_ids.rows_of("u7")[-1]])
    row = {"session_id": session, "tokens": 3, "finished": True, "copied_share": 0.0}
    rows = [
        {"policy": policy, "decoding": decoding, "text": f"{policy} {decoding}", **row}
        for policy in ("LangPTune", "LangPTune-0")
        for decoding in ("greedy", "sampled")
    ]
    pl.DataFrame(rows, schema=PROFILES).write_parquet(run / "profiles-train.parquet")
    backend = backend_of(run, tmp_path / "edits.sqlite")
    backend.live.reload()
    other = TestClient(make_app(backend), base_url=LOCAL)
    saved = other.get("/v2/users/u7/profile/untrained").json()
    assert (saved["profile"]["text"], saved["source"]) == ("LangPTune-0 greedy", "saved")
    assert other.get("/v2/users/u8/profile/untrained").json()["source"] == "written"


def test_items_are_found_by_id_and_by_title(client):
    assert ids(client.get("/v2/items", params={"query": "STORY 1", "limit": 3}).json()) == ["i1", "i10", "i11"]
    assert ids(client.get("/v2/items", params={"query": "i7"}).json()) == ["i7"]
    dragons = ids(client.get("/v2/items", params={"query": "red dragons", "limit": 50}).json())
    assert dragons == [f"i{i}" for i in range(0, 40, 4)]
    assert ids(client.get("/v2/items", params={"query": "%_*.?"}).json()) == []
    assert len(ids(client.get("/v2/items").json())) == 20


def test_the_most_popular_are_those_with_most_interactions(client, service):
    items = client.get("/v2/popular", params={"k": 40}).json()["items"]
    popularity = service.dataset.popularity
    assert [item["score"] for item in items] == sorted(popularity.tolist(), reverse=True)
    assert {item["id"]: item["score"] for item in items} == {f"i{i}": popularity[i] for i in range(40)}
    left = ids(client.get("/v2/popular", params={"k": 35, "user": "u7", "exclude": [items[0]["id"]]}).json())
    assert items[0]["id"] not in left


def test_versions_are_kept_and_undone(client):
    put = {"profile": {"text": TEXT, "weights": {"And red dragons!": 2}, "requests": {"jazz": 1.5}}}
    first = client.post("/v2/users/u20/profile", json={"expected_version": 0, "changed_by": "ada"}).json()
    assert (first["version"], first["current"]["kind"], first["current"]["changed_by"]) == (1, "written", "ada")
    second = client.put("/v2/users/u20/profile", json={**put, "expected_version": 1}).json()["current"]
    assert (second["number"], second["kind"], second["parent"], second["restores"]) == (2, "edited", 1, None)
    assert (second["profile"]["weights"], second["profile"]["requests"]) == ({"And red dragons!": 2}, {"jazz": 1.5})
    undone = client.post("/v2/users/u20/undo", json={"expected_version": 2, "changed_by": "bob"}).json()["current"]
    assert undone["profile"] == first["current"]["profile"]
    assert (undone["kind"], undone["restores"], undone["changed_by"]) == ("restored", 1, "bob")
    again = client.post("/v2/users/u20/undo", json={"expected_version": 3})
    assert (again.status_code, "nothing to undo" in again.json()["error"]) == (422, True)
    redone = client.post("/v2/users/u20/versions/2/restore", json={"expected_version": 3}).json()["current"]
    assert (redone["profile"], redone["number"]) == (second["profile"], 4)
    assert client.post("/v2/users/u20/versions/9/restore", json={"expected_version": 4}).status_code == 422
    now = client.get("/v2/users/u20").json()
    assert (now["version"], now["current"]) == (4, redone)
    all_of_them = client.get("/v2/users/u20/versions").json()["versions"]
    assert [version["number"] for version in all_of_them] == [4, 3, 2, 1]
    page = client.get("/v2/users/u20/versions", params={"before": 4, "limit": 2}).json()["versions"]
    assert [version["number"] for version in page] == [3, 2]


@pytest.mark.parametrize(
    ("method", "address", "more"),
    [
        ("PUT", "profile", {"profile": {"text": TEXT}}),
        ("POST", "profile", {}),
        ("POST", "undo", {}),
        ("POST", "versions/1/restore", {}),
    ],
)
def test_a_change_of_another_version_is_a_conflict_and_changes_nothing(client, method, address, more):
    user = f"/v2/users/u{30 + ['profile', 'undo', 'versions/1/restore'].index(address)}"
    version = client.get(user).json()["version"]
    current = client.put(f"{user}/profile", json={"profile": {"text": "One."}, "expected_version": version}).json()[
        "current"
    ]
    answer = client.request(method, f"{user}/{address}", json={"expected_version": version + 7, **more})
    assert (answer.status_code, answer.json()["error_type"]) == (409, "conflict")
    assert answer.json()["current"] == current
    assert client.get(user).json()["current"] == current
    fresh = client.put("/v2/users/u59/profile", json={"profile": {"text": "One."}, "expected_version": 3})
    assert (fresh.status_code, fresh.json()["current"]) == (409, None)


@pytest.mark.parametrize("text", ODD)
def test_texts_stay_what_they_are_in_every_field(client, service, text):
    user = f"/v2/users/u{40 + ODD.index(text)}"
    profile = {"text": text, "requests": {text: 1.0}}
    kept = client.put(f"{user}/profile", json={"profile": profile, "expected_version": 0, "changed_by": text}).json()
    assert kept["current"]["profile"]["text"] == text
    assert kept["current"]["profile"]["requests"] == {text: 1.0}
    assert kept["current"]["changed_by"] == text
    assert client.get(user).json()["current"] == kept["current"]
    sentences = kept["current"]["profile"]["sentences"]
    assert all(text[part["start"] : part["end"]] == part["text"] for part in sentences)
    ranked = client.post("/v2/recommend", json={"profile": profile, "k": 3}).json()
    assert [item["id"] for item in ranked["items"]] == [
        found[0] for found in service.recommend(Profile(text, {}, {text: 1.0}), 3)
    ]
    history = [{"item": "i1", "review": text}]
    assert client.post("/v2/profile", json={"history": history}).json()["profile"]["text"] == service.profile(
        [1], None, [text]
    )
    assert client.post("/v2/propose", json={"text": text, "instruction": text}).status_code == 200
    edits = [{"kind": "request", "text": text + "!", "weight": 1.0}]
    assert client.post("/v2/steer", json={"profile": {"text": text}, "edits": edits}).status_code == 200
    for answer in (
        client.post("/v2/recommend", json={"profile": {"text": "a"}, "exclude": [text]}),
        client.post("/v2/recommend", json={"profile": {"text": "a"}, "user": text}),
        client.post("/v2/explain", json={"profile": {"text": "a"}, "item": text}),
        client.get(f"/v2/users/{quote(text, safe='')}"),
    ):
        assert answer.status_code == 404
    assert client.get("/v2/items", params={"query": text}).json()["items"] == []
    assert client.get("/v2/users", params={"prefix": text}).json()["users"] == []


@pytest.mark.parametrize(
    ("profile", "status", "said"),
    [
        ({"text": ""}, 422, "at least 1 character"),
        ({"text": " \n "}, 422, "the profile is empty"),
        ({"text": "x" * 4001}, 413, "at most 4000 characters"),
        ({"text": "a\0b"}, 422, "NUL"),
        ({"text": 7}, 422, "profile.text"),
        ({"text": "a", "color": "red"}, 422, "profile.color"),
        ({"text": TEXT, "weights": {"And red dragon!": 2}}, 422, "Did you mean 'And red dragons!'?"),
        ({"text": TEXT, "weights": {"And red dragons!": 9}}, 422, "less than or equal to 5"),
        ({"text": TEXT, "requests": {" ": 1}}, 422, "the text is empty"),
        ({"text": TEXT, "requests": {str(i): 1 for i in range(21)}}, 413, "at most 20 items"),
    ],
)
def test_a_profile_that_cannot_be_used_is_named(client, profile, status, said):
    for method, address, more in (
        ("POST", "/v2/recommend", {}),
        ("POST", "/v2/explain", {"item": "i1"}),
        ("POST", "/v2/steer", {"edits": [{"kind": "request", "text": "x"}]}),
        ("PUT", "/v2/users/u3/profile", {"expected_version": 0}),
    ):
        answer = client.request(method, address, json={"profile": profile, **more})
        assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text
        assert answer.json()["error_type"] == {413: "too_large", 422: "invalid"}[status]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"profile": {"text": "a"}, "k": 1001}', 413),
        (b'{"profile": {"text": "a"}, "k": 0}', 422),
        (b'{"profile": {"text": "a"}, "k": 1.5}', 422),
        (b'{"profile": {"text": "a"}, "k": true}', 422),
        (b'{"profile": {"text": "a"}, "k": ' + b"9" * 5000 + b"}", 422),
        (b'{"profile": {"text": "a", "requests": {"x": NaN}}}', 422),
        (b'{"profile": {"text": "a", "requests": {"x": 1e999}}}', 422),
        (b'{"profile": {"text": "\\ud800"}}', 422),
        (b'{"profile": {"text": "a"}, "\\ud800": 1}', 422),
        (b"\xff\xfe\x00", 422),
        (b"", 422),
        (b"[]", 422),
        (b"null", 422),
        (b'{"profile":', 422),
        (b"[" * 100_000, 422),
        (b'{"profile": {"text": "' + b"x" * (1 << 20) + b'"}}', 413),
    ],
)
def test_a_body_that_cannot_be_read_is_no_error_of_ours(client, body, status):
    answer = client.post("/v2/recommend", content=body, headers=JSON)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "error_type"}


def test_what_is_not_there_is_said_in_the_same_form(client):
    for method, address, status in (("GET", "/v2/nowhere", 404), ("DELETE", "/v2/info", 405), ("GET", "/../x", 404)):
        answer = client.request(method, address)
        assert answer.status_code == status
        assert set(answer.json()) == {"error", "error_type"}


def test_a_run_without_a_policy_ranks_and_keeps_edits_and_says_why_it_does_not_write(served_run, tmp_path):
    run = shutil.copytree(served_run, tmp_path / "run", ignore=shutil.ignore_patterns("policy"))
    backend = backend_of(run, tmp_path / "edits.sqlite")
    backend.live.reload()
    client = TestClient(make_app(backend), base_url=LOCAL)
    assert client.get("/v2/info").json()["has_policy"] is False
    for address, body in (
        ("/v2/profile", {"user": "u3"}),
        ("/v2/users/u3/profile", {"expected_version": 0}),
        ("/v2/propose", {"text": TEXT, "instruction": "less"}),
    ):
        answer = client.post(address, json=body)
        assert (answer.status_code, answer.json()["error_type"]) == (424, "model")
        assert "has no trained policy" in answer.json()["error"]
    assert client.post("/v2/recommend", json={"profile": {"text": TEXT}}).status_code == 200
    put = {"profile": {"text": TEXT}, "expected_version": 0}
    assert client.put("/v2/users/u3/profile", json=put).status_code == 200
    assert client.get("/v2/users/u3/profile/untrained").status_code == 200


def test_a_model_that_fails_is_said_to_fail_and_the_next_request_is_answered(client, loaded, monkeypatch):
    service = loaded.live.current.service

    def fail(*_, **__):
        raise RuntimeError("out of paper")

    with monkeypatch.context() as patch:
        patch.setattr(service, "propose", fail)
        answer = client.post("/v2/propose", json={"text": TEXT, "instruction": "less"})
        assert (answer.status_code, answer.json()["error_type"]) == (424, "model")
        assert "out of paper" in answer.json()["error"]
        patch.setattr(service._recommender().encoder._embedder, "encode_profiles", fail)
        answer = client.post("/v2/recommend", json={"profile": {"text": "never embedded before"}})
        assert (answer.status_code, answer.json()["error_type"]) == (424, "model")
    assert client.post("/v2/propose", json={"text": TEXT, "instruction": "less"}).status_code == 200
    assert client.post("/v2/recommend", json={"profile": {"text": "never embedded before"}}).status_code == 200


def test_a_fault_of_ours_is_one_answer_and_the_server_goes_on(loaded, monkeypatch):
    client = TestClient(make_app(loaded), base_url=LOCAL, raise_server_exceptions=False)
    monkeypatch.setattr(LoadedRun, "history_of", lambda *_: {}["a secret"])
    answer = client.get("/v2/users/u3")
    assert (answer.status_code, answer.json()["error_type"]) == (500, "internal")
    assert "secret" not in answer.text
    assert client.get("/v2/info").status_code == 200


def test_numbers_are_there_for_prometheus(client):
    client.get("/v2/users/u3")
    client.get("/made/up")
    text = client.get("/metrics").text
    assert 'langptune_requests_total{address="/v2/users/{user:path}",method="GET",status="200"}' in text
    assert 'address="other",method="GET",status="404"' in text
    assert "made/up" not in text
    for name in ("langptune_request_seconds_bucket", "langptune_encoding_texts_count", "langptune_writing_waiting"):
        assert name in text


def test_a_user_whose_id_has_a_slash_is_found(loaded, client, monkeypatch):
    asked = []
    monkeypatch.setattr(type(loaded.live.current.users), "check", lambda self, user: asked.append(user))
    assert client.get("/v2/users/a%2Fb/versions").json()["versions"] == []
    assert asked == ["a/b"]
