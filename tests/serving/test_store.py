"""The store of edited profiles, in SQLite and in a real PostgreSQL."""

import os
import pwd
import re
import shutil
import sqlite3
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from langptune_rs.distributed.group import free_port
from langptune_rs.errors import InputError
from langptune_rs.recommending.edits import Profile
from langptune_rs.serving.store import (
    FILE,
    ConflictError,
    ProfileStore,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)

BY = {"changed_by": "ada", "model_version": "m1"}
POSTGRES = shutil.which("postgres") or next(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))), None)


@pytest.fixture(scope="session")
def postgres():
    """The URL of a PostgreSQL server of its own, which refuses to run as root."""
    if POSTGRES is None:
        assert not os.environ.get("CI"), "CI has PostgreSQL"
        pytest.skip("there is no postgres on this machine")
    binaries = Path(os.path.realpath(POSTGRES)).parent
    if not (binaries / "initdb").is_file():
        binaries = next(path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")))
    user = None if os.geteuid() else next((n for n in ("postgres", "nobody") if _exists(n)), None)
    folder = Path(tempfile.mkdtemp(prefix="langptune-postgres-"))
    if user:
        shutil.chown(folder, user)
    # The user of the server may not look into the folder that the tests run in.
    options = {"cwd": folder, "user": user, "capture_output": True, "text": True, "timeout": 120}
    data, port = folder / "data", free_port()
    control = [binaries / "pg_ctl", "--pgdata", data, "--wait", "--log", folder / "log"]
    subprocess.run(
        [
            binaries / "initdb",
            "--pgdata",
            data,
            "--auth",
            "trust",
            "--username",
            "langptune",
            "--no-sync",
            "-E",
            "UTF8",
        ],
        check=True,
        **options,
    )
    arguments = f"-F -p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c shared_buffers=16MB"
    subprocess.run([*control, "-o", arguments, "start"], check=True, **options)
    try:
        yield f"postgresql+psycopg://langptune@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "--mode", "immediate", "stop"], check=False, **options)
        shutil.rmtree(folder, ignore_errors=True)


def _exists(name: str) -> bool:
    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    """A store that holds nothing, in each of the databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / FILE}"
    url = request.getfixturevalue("postgres")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS langptune_store, profile_versions"))
    engine.dispose()
    return url


@pytest.fixture
def store(url):
    opened = ProfileStore.open(url)
    yield opened
    opened.close()


def texts(store: ProfileStore, user: str = "u") -> list[str]:
    return [version.profile.text for version in store.versions(user)]


def test_every_version_is_kept_with_what_it_came_from(store):
    assert store.current("u") is None
    profile = Profile("One. Two.", {"Two.": 0.5}, {"jazz": -1.5})
    first = store.add("u", profile, expected=0, kind="written", **BY)
    second = store.add("u", Profile("Three."), expected=1, changed_by="bob", model_version="m2")
    assert store.current("u") == second
    assert store.version("u", 1) == first
    assert (first.profile, first.kind, first.changed_by, first.model_version) == (profile, "written", "ada", "m1")
    assert (second.number, second.parent, second.restores, second.kind) == (2, 1, None, "edited")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", second.changed_at)
    assert [version.number for version in store.versions("u")] == [2, 1]
    assert store.current("U") is None
    assert store.versions("other") == []


def test_undoing_goes_back_step_by_step_and_restoring_goes_anywhere(store):
    for number, content in enumerate(("a", "b", "c")):
        store.add("u", Profile(content), expected=number, **BY)
    assert store.undo("u", expected=3, **BY).profile.text == "b"
    assert store.undo("u", expected=4, **BY).profile.text == "a"
    with pytest.raises(InputError, match="nothing to undo"):
        store.undo("u", expected=5, **BY)
    redone = store.restore("u", 4, expected=5, **BY)
    assert (redone.profile.text, redone.restores, redone.parent, redone.kind) == ("b", 2, 5, "restored")
    store.add("u", Profile("d"), expected=6, **BY)
    assert store.undo("u", expected=7, **BY).profile.text == "b"
    assert store.undo("u", expected=8, **BY).profile.text == "a"
    with pytest.raises(InputError, match="has no version 99"):
        store.restore("u", 99, expected=9, **BY)
    assert texts(store) == ["a", "b", "d", "b", "a", "b", "c", "b", "a"]
    with pytest.raises(InputError, match="nothing to undo"):
        store.undo("nobody", expected=0, **BY)


def test_a_change_of_another_version_is_refused_with_the_current_one(store):
    store.add("u", Profile("a"), expected=0, **BY)
    second = store.add("u", Profile("b"), expected=1, **BY)
    for change in (
        lambda: store.add("u", Profile("c"), expected=1, **BY),
        lambda: store.undo("u", expected=3, **BY),
        lambda: store.restore("u", 1, expected=0, **BY),
    ):
        with pytest.raises(ConflictError, match="is at version 2") as raised:
            change()
        assert raised.value.current == second
    with pytest.raises(ConflictError, match="has none yet"):
        store.add("v", Profile("c"), expected=1, **BY)
    assert texts(store) == ["b", "a"]


def test_of_many_changes_at_once_one_is_made_and_the_others_are_told(url):
    """Two stores stand for two processes, each with some threads."""
    stores = [ProfileStore.open(url) for _ in range(2)]
    num_threads, rounds = 8, 5
    begin = Barrier(num_threads)

    def change(thread: int) -> tuple[list[int], list[int]]:
        """The versions that this thread made, and those that it was told of."""
        made, told = [], []
        for number in range(rounds):
            begin.wait(60)
            try:
                made.append(stores[thread % 2].add("u", Profile(f"{thread}"), expected=number, **BY).number)
            except ConflictError as error:
                told.append(error.current.number)
        return made, told

    with ThreadPoolExecutor(num_threads) as pool:
        found = list(pool.map(change, range(num_threads)))
    assert sorted(number for made, _ in found for number in made) == list(range(1, rounds + 1))
    assert all(sorted([*made, *told]) == list(range(1, rounds + 1)) for made, told in found)
    assert [version.number for version in stores[0].versions("u")] == list(range(rounds, 0, -1))
    for store in stores:
        store.close()


def test_two_processes_may_make_a_store_at_once(url):
    begin = Barrier(6)

    def open_store(_: int) -> int:
        begin.wait(60)
        store = ProfileStore.open(url)
        store.check()
        store.close()
        return 1

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(open_store, range(6))) == 6


def test_another_store_sees_what_one_has_written(url):
    one, other = ProfileStore.open(url), ProfileStore.open(url)
    one.add("u", Profile("a"), expected=0, **BY)
    assert other.current("u") == one.current("u")
    other.add("u", Profile("b"), expected=1, **BY)
    assert texts(one) == ["b", "a"]
    one.close()
    other.close()


def test_a_store_of_another_version_is_refused_with_what_to_do(url, store):
    with store._engine.begin() as connection:
        connection.execute(text("UPDATE langptune_store SET schema_version = 9"))
    with pytest.raises(StoreError, match=r"has the layout 9, and this version of langptune reads layout 1\. Serve it"):
        ProfileStore.open(url)


def test_texts_stay_what_they_are(store):
    odd = ["'; DROP TABLE profile_versions; --", "\u2028\x7f\ufeff 🚂 遅い", "<|im_end|>", "%s {} \\"]
    for number, content in enumerate(odd):
        profile = Profile(content, {content: 2.0}, {content: 1.0})
        store.add(odd[0], profile, expected=number, changed_by=content, model_version="m")
        assert store.current(odd[0]).profile == profile
        assert store.current(odd[0]).changed_by == content


@given(steps=st.lists(st.tuples(st.sampled_from(["add", "undo", "restore"]), st.integers(1, 12)), max_size=12))
@settings(max_examples=10)
def test_any_changes_leave_what_a_list_of_them_would(tmp_path_factory, steps):
    """Against a model: the history of contents, and of where each came from."""
    store = ProfileStore.open(f"sqlite:///{tmp_path_factory.mktemp('store') / FILE}")
    contents: list[int] = []  # version -> the version whose content it is, all counted from 1
    for kind, number in steps:
        expected = len(contents)
        base = contents[-1] if contents else 0
        if kind == "add":
            store.add("u", Profile(str(expected + 1)), expected=expected, **BY)
            contents.append(expected + 1)
        elif kind == "undo" and base > 1:
            store.undo("u", expected=expected, **BY)
            contents.append(contents[base - 2])
        elif kind == "restore" and number <= expected:
            store.restore("u", number, expected=expected, **BY)
            contents.append(contents[number - 1])
        else:
            change = partial(store.undo, "u") if kind == "undo" else partial(store.restore, "u", number)
            with pytest.raises(InputError):
                change(expected=expected, **BY)
    assert texts(store) == [str(content) for content in reversed(contents)]
    store.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "cannot be used. Give --store sqlite:////path"),
        ("mysql://ada:secret@host/x", r"'mysql://ada:\*\*\*@host/x' cannot be used"),
        ("sqlite://", "cannot be used"),
        ("sqlite:///:memory:", "cannot be used"),
        ("sqlite:////tmp/x.sqlite?timeout=abc", "cannot be used"),
        ("sqlite:////no/such/folder/x.sqlite", "unable to open database file"),
        ("postgresql+psycopg://ada:secret@127.0.0.1:1/x", r"ada:\*\*\*@127.0.0.1:1/x cannot be used now"),
    ],
)
def test_a_store_that_cannot_be_opened_is_named_without_its_password(url, said):
    with pytest.raises(StoreError, match=said) as raised:
        ProfileStore.open(url)
    assert "secret" not in str(raised.value)


def test_changes_do_not_wait_one_after_the_other_for_a_store_that_is_locked(tmp_path, monkeypatch):
    monkeypatch.setattr("langptune_rs.serving.store.SECONDS_TO_WAIT", 0.5)
    store = ProfileStore.in_run(tmp_path)
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        changes = [pool.submit(store.add, f"u{n}", Profile("cats"), expected=0, **BY) for n in range(20)]
        for change in changes:
            with pytest.raises(StoreUnavailableError, match="cannot be used now"):
                change.result()
    assert time.monotonic() - started < 5  # twenty times half a second, if each waited for the one before
    other.close()
    assert store.add("u1", Profile("cats"), expected=0, **BY).number == 1
    store.close()


def test_a_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / FILE).write_text("my notes" * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        ProfileStore.in_run(tmp_path)
    assert (tmp_path / FILE).read_text() == "my notes" * 100


def test_a_path_with_signs_of_a_url_is_a_path(tmp_path):
    folder = tmp_path / "a?b=c#d %20"
    folder.mkdir()
    ProfileStore.in_run(folder).close()
    assert (folder / FILE).is_file()


def fill(store: ProfileStore) -> int:
    """Write versions until there is no room for another; how many there are then."""
    added = (store.add("u", Profile("x" * 4000), expected=number, **BY) for number in range(10_000))
    with pytest.raises(StoreFullError, match=r"has no room for another version: .* Free some space and send it again"):
        list(added)
    return store.current("u").number


def test_a_full_store_says_so_keeps_what_it_has_and_goes_on_when_there_is_room(tmp_path):
    store = ProfileStore.in_run(tmp_path)

    def limit(pages: int) -> None:
        store._engine.dispose()
        with store._engine.connect() as connection:  # the only one of the pool
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    limit(40)
    full = fill(store)
    assert full > 3
    with pytest.raises(StoreFullError):
        store.add("v", Profile("y" * 4000), expected=0, **BY)
    assert len(store.versions("u", limit=1000)) == full
    assert store.current("v") is None
    limit(10_000)
    store.add("v", Profile("y" * 4000), expected=0, **BY)
    store.close()


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True, timeout=30
    )
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True, timeout=30)


def test_a_full_disk_is_said_to_be_full(small_disk):
    store = ProfileStore.in_run(small_disk)
    (small_disk / "others").write_bytes(b"x" * 500_000)
    full = fill(store)
    assert len(store.versions("u", limit=1000)) == full > 0
    (small_disk / "others").unlink()
    store.add("u", Profile("again"), expected=full, **BY)
    store.close()


def test_a_full_disk_of_postgresql_is_said_to_be_full(postgres):
    store = ProfileStore.open(postgres)
    full = "DO $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$"
    with pytest.raises(StoreFullError, match="No space left on device"), store._connected(writes=True) as connection:
        connection.exec_driver_sql(full)
    store.check()
    store.close()


def test_a_database_that_goes_away_is_said_to_be_unavailable(tmp_path):
    store = ProfileStore.in_run(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("DROP TABLE profile_versions")
    connection.close()
    with pytest.raises(StoreUnavailableError, match="cannot be used now: no such table"):
        store.current("u")
    store.close()
