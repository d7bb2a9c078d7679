"""Profiles that a policy writes. Nothing is kept."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from langptune_rs.recommending import edits
from langptune_rs.serving.answers import Profile, WriteAnswer
from langptune_rs.serving.backend import PREFIX, Run, Serving, written
from langptune_rs.serving.bodies import ProposeBody, WriteBody
from langptune_rs.serving.live_run import History, LoadedRun

router = APIRouter(prefix=PREFIX, tags=["profiles"])


@router.post("/profile")
async def write_profile(body: WriteBody, request: Request, backend: Serving, run: Run) -> WriteAnswer:
    """Write the profile of a user of the data, or of a history."""
    history = await run_in_threadpool(_history, run, body)
    text = await written(backend, request, run, history, trained=body.policy == "trained")
    return WriteAnswer(
        model_version=run.version, profile=Profile.of(edits.Profile(text)), policy=body.policy, source="written"
    )


@router.post("/propose")
async def propose(body: ProposeBody, request: Request, backend: Serving, run: Run) -> WriteAnswer:
    """The profile as the policy rewrites it by an instruction: a proposal, for a person to read."""
    text = await backend.write(
        request, lambda on_token: run.service.propose(body.text, body.instruction, on_token=on_token)
    )
    return WriteAnswer(
        model_version=run.version, profile=Profile.of(edits.Profile(text)), policy="trained", source="written"
    )


def _history(run: LoadedRun, body: WriteBody) -> History:
    if body.user is not None:
        return run.history_of(body.user)
    return run.history([(past.item, past.rating, past.review) for past in body.history or ()])
