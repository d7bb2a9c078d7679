"""The store of edited profiles: every version of every user's profile, in SQLite or PostgreSQL.

Versions are only ever added. Undoing and restoring add one, too, which has the content of an earlier one. What was
acknowledged is on the disk. Several processes may share a store: each reads what the others have written.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    RowMapping,
    Table,
    Text,
    create_engine,
    event,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, TimeoutError

from langptune_rs.errors import InputError, LangptuneError, sentence
from langptune_rs.recommending.edits import Profile

SCHEMA_VERSION = 1
FILE = "profile-edits.sqlite"
"""The name of the store in a run's folder."""
SECONDS_TO_WAIT = 10
"""How long a write waits for another one, and a call for a connection."""
KINDS = ("written", "edited", "restored")

Kind = Literal["written", "edited", "restored"]
"""How a version came to be: the policy wrote it, a person did, or it is an earlier one again."""

_META = MetaData()
_ABOUT = Table("langptune_store", _META, Column("schema_version", Integer, primary_key=True, autoincrement=False))
_VERSIONS = Table(
    "profile_versions",
    _META,
    Column("user_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("weights", JSON, nullable=False),
    Column("requests", JSON, nullable=False),
    Column("kind", Text, nullable=False),
    Column("changed_by", Text, nullable=False),
    Column("changed_at", Text, nullable=False),
    Column("parent", Integer),
    Column("restores", Integer),
    Column("model_version", Text, nullable=False),
)
_CREATION_LOCK = 5_020_026
"""The number of PostgreSQL's lock under which the tables are made."""
_DISK_FULL = "53100"
"""PostgreSQL's code."""
_FULL = 1 << 20
"""With fewer bytes than this left, an error of the file system is taken as one of a full disk."""


class StoreError(LangptuneError):
    """The store of edited profiles cannot be opened."""


class StoreFullError(StoreError):
    """There is no room for another version."""


class StoreUnavailableError(StoreError):
    """The store cannot be used now."""


class ConflictError(LangptuneError):
    """A profile has another version than the one that a change was made of.

    Attributes:
        current: the version that it has, None where it has none.
    """

    def __init__(self, user: str, expected: int, current: Version | None):
        self.current = current
        have = "has none yet (version 0)" if current is None else f"is at version {current.number}"
        super().__init__(
            f"The profile of user {user!r} {have}, and the change was made of version {expected}: somebody else "
            "changed it meanwhile. Look at the current version, and change that."
        )


@dataclass(frozen=True)
class Version:
    """A version of a user's profile.

    Attributes:
        number: from 1 for each user.
        profile: the text, and what a person set beside it.
        kind: how it came to be.
        changed_by: who made it, as they call themselves.
        changed_at: when, in ISO 8601, UTC.
        parent: the version that was the current one before; None for the first.
        restores: the version that it is again; None for a new content.
        model_version: of the models that were served then.
    """

    number: int
    profile: Profile
    kind: Kind
    changed_by: str
    changed_at: str
    parent: int | None
    restores: int | None
    model_version: str


class ProfileStore:
    """Versions of users' profiles in a database. Many threads may use it."""

    def __init__(self, engine: Engine):
        """`ProfileStore.open` makes one."""
        self._engine = engine
        self._name = engine.url.render_as_string(hide_password=True)
        # SQLite takes one writer at a time and does not queue them.
        self._queue = Lock() if engine.dialect.name == "sqlite" else None

    @classmethod
    def open(cls, url: str | URL) -> ProfileStore:
        """The store at an SQLAlchemy URL, made where there is none.

        Raises `StoreError` for a URL that leads nowhere, and for a store that another version of langptune made.
        """
        parsed = _parsed(url)
        is_sqlite = parsed.get_backend_name() == "sqlite"
        arguments: dict[str, Any] = {"timeout": SECONDS_TO_WAIT}
        if not is_sqlite:
            arguments = {"connect_timeout": SECONDS_TO_WAIT, "options": f"-c statement_timeout={SECONDS_TO_WAIT}s"}
        engine = create_engine(
            parsed, connect_args=arguments, pool_pre_ping=not is_sqlite, pool_timeout=SECONDS_TO_WAIT, max_overflow=35
        )
        if is_sqlite:
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        store = cls(engine)
        try:
            store._make_tables()
        except BaseException:
            engine.dispose()
            raise
        return store

    @classmethod
    def in_run(cls, run: Path) -> ProfileStore:
        """The store in a run's folder."""
        return cls.open(URL.create("sqlite", database=str(run / FILE)))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def check(self) -> None:
        """Raise `StoreUnavailableError` where the store cannot be used."""
        with self._connected() as connection:
            connection.execute(select(_ABOUT)).all()

    def current(self, user: str) -> Version | None:
        """The newest version of a user's profile; None where there is none."""
        with self._connected() as connection:
            return _current(connection, user)

    def version(self, user: str, number: int) -> Version:
        """A version of a user's profile. Raises `InputError` where there is no such version."""
        with self._connected() as connection:
            return _version(connection, user, number)

    def versions(self, user: str, *, before: int | None = None, limit: int = 50) -> list[Version]:
        """At most `limit` versions, the newest first; those `before` a number, where one is given."""
        wanted = select(_VERSIONS).where(_VERSIONS.c.user_id == user).order_by(_VERSIONS.c.number.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(_VERSIONS.c.number < before)
        with self._connected() as connection:
            return [_read(row) for row in connection.execute(wanted).mappings()]

    def add(
        self, user: str, profile: Profile, *, expected: int, changed_by: str, model_version: str, kind: Kind = "edited"
    ) -> Version:
        """Make a profile the user's current one, after the version `expected`, 0 for none.

        Raises `ConflictError` when another version is the current one, and `StoreFullError`.
        """
        with self._changing(user, expected) as (connection, current):
            return _write(connection, user, current, profile, kind, changed_by, None, model_version)

    def restore(self, user: str, number: int, *, expected: int, changed_by: str, model_version: str) -> Version:
        """Make the content of an earlier version the current one again. The errors are those of `add` and `version`."""
        with self._changing(user, expected) as (connection, current):
            wanted = _version(connection, user, number)
            return _write(
                connection,
                user,
                current,
                wanted.profile,
                "restored",
                changed_by,
                wanted.restores or wanted.number,
                model_version,
            )

    def undo(self, user: str, *, expected: int, changed_by: str, model_version: str) -> Version:
        """Go back to the profile before the change that made the current one; undoing again goes back further.

        The errors are those of `add`, and `InputError` where there is nothing before.
        """
        with self._changing(user, expected) as (connection, current):
            content = current and (_version(connection, user, current.restores) if current.restores else current)
            if content is None or content.parent is None:
                raise InputError(f"There is nothing to undo: no version of the profile of {user!r} comes before.")
            wanted = _version(connection, user, content.parent)
            return _write(
                connection,
                user,
                current,
                wanted.profile,
                "restored",
                changed_by,
                wanted.restores or wanted.number,
                model_version,
            )

    def _make_tables(self) -> None:
        with self._connected(writes=True) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(select(text(f"pg_advisory_xact_lock({_CREATION_LOCK})")))
            _META.create_all(connection)
            found = connection.scalar(select(_ABOUT.c.schema_version))
            if found is None:
                connection.execute(insert(_ABOUT).values(schema_version=SCHEMA_VERSION))
            elif found != SCHEMA_VERSION:
                raise StoreError(
                    f"The store {self._name} has the layout {found}, and this version of langptune reads layout "
                    f"{SCHEMA_VERSION}. Serve it with the langptune that made it, or give another --store."
                )

    @contextmanager
    def _changing(self, user: str, expected: int) -> Iterator[tuple[Connection, Version | None]]:
        """A transaction in which a user's profile gets another version, and the version that is current before."""
        try:
            with self._turn(), self._connected(writes=True) as connection:
                current = _current(connection, user)
                if (current.number if current else 0) != expected:
                    raise ConflictError(user, expected, current)
                yield connection, current
        except IntegrityError:  # another process was faster
            raise ConflictError(user, expected, self.current(user)) from None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The one place of a thread that writes. Raises `StoreUnavailableError` where others have it for too long."""
        if self._queue is None:
            yield
            return
        if not self._queue.acquire(timeout=SECONDS_TO_WAIT):
            raise StoreUnavailableError(
                f"The store {self._name} cannot be used now: other changes have waited for it for {SECONDS_TO_WAIT} s."
            )
        try:
            yield
        finally:
            self._queue.release()

    @contextmanager
    def _connected(self, *, writes: bool = False) -> Iterator[Connection]:
        """A transaction. Raises `StoreFullError` and `StoreUnavailableError` for what the database says."""
        try:
            with self._engine.execution_options(langptune_writes=writes).begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except (DBAPIError, TimeoutError, OSError) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> StoreError:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        first = sentence(str(cause).strip().splitlines()[0]) if str(cause).strip() else type(cause).__name__
        if _is_of_full_disk(cause, self._engine.url):
            return StoreFullError(
                f"The store {self._name} has no room for another version: {first} Nothing of this change was kept. "
                "Free some space and send it again."
            )
        return StoreUnavailableError(f"The store {self._name} cannot be used now: {first}")


def _parsed(url: str | URL) -> URL:
    """A URL of SQLite or PostgreSQL. Raises `StoreError` for any other."""
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError):
        parsed = None
    is_known = parsed is not None and parsed.drivername in ("sqlite", "postgresql+psycopg") and bool(parsed.database)
    if parsed is not None and parsed.drivername == "sqlite":  # a file, and nothing that changes how it is opened
        is_known = is_known and parsed.database != ":memory:" and not parsed.query
    if parsed is None or not is_known:
        shown = "" if parsed is None else f" {parsed.render_as_string(hide_password=True)!r}"
        raise StoreError(
            f"The store{shown} cannot be used. Give --store sqlite:////path/of/a/file.sqlite or "
            "--store postgresql+psycopg://user:password@host/database, or leave it out for a file in the run's folder."
        )
    return parsed


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # the transactions are ours
    for _attempt in range(100):  # SQLite does not wait where two processes make one file at once
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(SECONDS_TO_WAIT / 100)
    connection.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(connection: Connection) -> None:
    """A transaction that writes takes its place at once: one that read before could not write after another."""
    writes = connection.get_execution_options().get("langptune_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _current(connection: Connection, user: str) -> Version | None:
    wanted = select(_VERSIONS).where(_VERSIONS.c.user_id == user).order_by(_VERSIONS.c.number.desc()).limit(1)
    row = connection.execute(wanted).mappings().first()
    return None if row is None else _read(row)


def _version(connection: Connection, user: str, number: int) -> Version:
    wanted = select(_VERSIONS).where(_VERSIONS.c.user_id == user, _VERSIONS.c.number == number)
    row = connection.execute(wanted).mappings().first()
    if row is None:
        raise InputError(f"The profile of user {user!r} has no version {number}.")
    return _read(row)


def _read(row: RowMapping) -> Version:
    return Version(
        number=row["number"],
        profile=Profile(row["text"], row["weights"], row["requests"]),
        **{key: row[key] for key in ("kind", "changed_by", "changed_at", "parent", "restores", "model_version")},
    )


def _write(
    connection: Connection,
    user: str,
    current: Version | None,
    profile: Profile,
    kind: Kind,
    changed_by: str,
    restores: int | None,
    model_version: str,
) -> Version:
    """Add a version after the current one."""
    version = Version(
        number=current.number + 1 if current else 1,
        profile=profile,
        kind=kind,
        changed_by=changed_by,
        changed_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        parent=current.number if current else None,
        restores=restores,
        model_version=model_version,
    )
    connection.execute(
        insert(_VERSIONS).values(
            user_id=user,
            text=profile.text,
            weights=dict(profile.weights),
            requests=dict(profile.requests),
            **{
                key: getattr(version, key)
                for key in ("number", "kind", "changed_by", "changed_at", "parent", "restores", "model_version")
            },
        )
    )
    return version


def _is_of_full_disk(error: BaseException, url: URL) -> bool:
    """Whether an error of a database says that a disk is full, as it does in several ways."""
    if getattr(error, "sqlstate", None) == _DISK_FULL or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return True
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return code == sqlite3.SQLITE_FULL
    folder = Path(url.database or ".").absolute().parent
    return folder.is_dir() and shutil.disk_usage(folder).free < _FULL
