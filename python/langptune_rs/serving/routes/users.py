"""Users of the data: who there is, what they chose, and every version of their profiles."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import AfterValidator

from langptune_rs.recommending import edits
from langptune_rs.serving.answers import (
    PastItem,
    Profile,
    UserAnswer,
    UsersAnswer,
    Version,
    VersionAnswer,
    VersionsAnswer,
    WriteAnswer,
)
from langptune_rs.serving.backend import PREFIX, Run, Serving, written
from langptune_rs.serving.bodies import MAX_ID, MAX_NUMBER, MAX_PAGE, ChangeBody, PutBody, whole
from langptune_rs.serving.store import ConflictError

router = APIRouter(prefix=PREFIX, tags=["users"])

UserPath = Annotated[str, Path(min_length=1, max_length=MAX_ID, description="The id of a user."), AfterValidator(whole)]
Number = Annotated[int, Path(ge=1, le=MAX_NUMBER, description="The number of a version.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="How many entries at most.")]


@router.get("/users")
def search_users(
    run: Run,
    prefix: Annotated[str, Query(max_length=MAX_ID, description="What the ids begin with, in any case.")] = "",
    offset: Annotated[int, Query(ge=0, le=MAX_NUMBER, description="How many ids to pass over.")] = 0,
    limit: Limit = 50,
) -> UsersAnswer:
    """Users by the beginning of their ids."""
    users, total = run.users.beginning_with(prefix, offset=offset, limit=limit)
    return UsersAnswer(model_version=run.version, users=users, total=total)


@router.get("/users/{user:path}/profile/untrained")
async def read_untrained(user: UserPath, request: Request, backend: Serving, run: Run) -> WriteAnswer:
    """The profile of a user as the policy wrote it before it was trained."""
    history = await run_in_threadpool(run.history_of, user)
    saved = await run_in_threadpool(run.saved_untrained, user)
    text = saved or await written(backend, request, run, history, trained=False)
    return WriteAnswer(
        model_version=run.version,
        profile=Profile.of(edits.Profile(text)),
        policy="untrained",
        source="saved" if saved else "written",
    )


@router.get("/users/{user:path}/versions")
def read_versions(
    user: UserPath,
    backend: Serving,
    run: Run,
    before: Annotated[int | None, Query(ge=1, le=MAX_NUMBER, description="Only versions before this number.")] = None,
    limit: Limit = 50,
) -> VersionsAnswer:
    """Every version of a user's profile, the newest first."""
    run.users.check(user)
    versions = backend.store.versions(user, before=before, limit=limit)
    return VersionsAnswer(model_version=run.version, versions=[Version.of(version) for version in versions])


@router.post("/users/{user:path}/versions/{number}/restore")
def restore_version(user: UserPath, number: Number, body: ChangeBody, backend: Serving, run: Run) -> VersionAnswer:
    """Make the content of a version the current profile again, as a new version."""
    run.users.check(user)
    version = backend.store.restore(
        user, number, expected=body.expected_version, changed_by=body.changed_by, model_version=run.version
    )
    return VersionAnswer(model_version=run.version, version=version.number, current=Version.of(version))


@router.post("/users/{user:path}/undo")
def undo_change(user: UserPath, body: ChangeBody, backend: Serving, run: Run) -> VersionAnswer:
    """Take back the change that made the current profile; once more takes back the one before it."""
    run.users.check(user)
    version = backend.store.undo(
        user, expected=body.expected_version, changed_by=body.changed_by, model_version=run.version
    )
    return VersionAnswer(model_version=run.version, version=version.number, current=Version.of(version))


@router.put("/users/{user:path}/profile")
def put_profile(user: UserPath, body: PutBody, backend: Serving, run: Run) -> VersionAnswer:
    """Keep a profile as the new version of a user's."""
    run.users.check(user)
    version = backend.store.add(
        user,
        body.profile.profile(),
        expected=body.expected_version,
        changed_by=body.changed_by,
        model_version=run.version,
    )
    return VersionAnswer(model_version=run.version, version=version.number, current=Version.of(version))


@router.post("/users/{user:path}/profile")
async def write_profile_of_user(
    user: UserPath, body: ChangeBody, request: Request, backend: Serving, run: Run
) -> VersionAnswer:
    """Let the policy write a user's profile, and keep it as a new version."""
    history = await run_in_threadpool(run.history_of, user)
    current = await run_in_threadpool(backend.store.current, user)
    if (current.number if current else 0) != body.expected_version:
        raise ConflictError(user, body.expected_version, current)  # before a text is written for nothing
    text = await written(backend, request, run, history, trained=True)
    version = await run_in_threadpool(
        backend.store.add,
        user,
        edits.Profile(text),
        expected=body.expected_version,
        changed_by=body.changed_by,
        model_version=run.version,
        kind="written",
    )
    return VersionAnswer(model_version=run.version, version=version.number, current=Version.of(version))


@router.get("/users/{user:path}")
def read_user(user: UserPath, backend: Serving, run: Run) -> UserAnswer:
    """The newest history of a user, and the current version of the profile."""
    history, catalog = run.history_of(user), run.service.catalog
    current = backend.store.current(user)
    return UserAnswer(
        model_version=run.version,
        id=user,
        history=[
            PastItem(id=catalog.item_ids[item], title=catalog.titles[item], rating=run.rating_of(stars), review=review)
            for item, stars, review in zip(history.items, history.ratings, history.reviews, strict=True)
        ],
        version=current.number if current else 0,
        current=Version.of(current) if current else None,
    )
