"""The server itself: what it serves, whether it is there, its numbers, and another run in place of this one."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from langptune_rs.errors import LangptuneError
from langptune_rs.serving.answers import HealthAnswer, InfoAnswer, ReloadAnswer, Scale
from langptune_rs.serving.backend import PREFIX, Run, Serving
from langptune_rs.serving.bodies import LIMITS
from langptune_rs.serving.problems import Problem

router = APIRouter(prefix=PREFIX, tags=["server"])


@router.get("/health/live")
async def live() -> HealthAnswer:
    """The process answers."""
    return HealthAnswer(status="alive")


@router.get("/health/ready")
async def ready(backend: Serving, run: Run) -> HealthAnswer:
    """The models are loaded and the store answers."""
    await run_in_threadpool(backend.store.check)
    return HealthAnswer(status="ready")


@router.get("/info")
def info(run: Run) -> InfoAnswer:
    """What is served, and within which limits."""
    service = run.service
    scale = service.dataset.rating_scale
    return InfoAnswer(
        model_version=run.version,
        method=service.config.method,
        num_items=len(service.catalog),
        num_users=len(run.users),
        rating_scale=Scale(low=scale.low, high=scale.high),
        has_policy=service.has_policy,
        limits=LIMITS,
    )


@router.post("/reload")
async def reload(backend: Serving) -> ReloadAnswer:
    """Load what the run's folder, or the link to it, holds now, and put it in place of the current run."""
    try:
        is_other = await run_in_threadpool(backend.reload)
    except LangptuneError as error:
        raise Problem(424, "model", f"The run that is served stays: {error}") from error
    current = backend.live.current
    assert current is not None, "reload has loaded it"
    return ReloadAnswer(model_version=current.version, reloaded=is_other)


metrics_router = APIRouter(tags=["server"])


@metrics_router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(backend: Serving) -> Response:
    """The numbers of the server in Prometheus' text format."""
    backend.monitoring.waiting.set(backend.generation.num_waiting)
    return Response(backend.monitoring.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
