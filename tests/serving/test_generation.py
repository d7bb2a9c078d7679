"""The thread that writes: who waits, who is refused, and who is forgotten."""

import asyncio
import logging
import threading
import time
from threading import Event

import pytest

from langptune_rs.errors import InputError, ModelError
from langptune_rs.serving.generation import Generation
from langptune_rs.serving.problems import Problem


@pytest.fixture
def generation():
    made = Generation(max_waiting=2, seconds=20)
    yield made
    made.close()


class Slow:
    """A text that is written token by token until it may end."""

    def __init__(self) -> None:
        self.begun, self.end, self.tokens = Event(), Event(), 0

    def __call__(self, on_token):
        self.begun.set()
        while not self.end.is_set():
            self.tokens += 1
            on_token()
            time.sleep(0.001)
        return "a text"


async def never() -> None:
    await asyncio.Event().wait()


async def until(condition) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_texts_are_written_in_turn_on_one_thread(generation):
    threads, order = set(), []

    def work(number):
        def write(on_token):
            threads.add(threading.get_ident())
            order.append(number)
            return number

        return write

    async def ask():
        generation.max_waiting = 10
        return await asyncio.gather(*(generation.write(work(i), never) for i in range(10)))

    assert asyncio.run(ask()) == list(range(10)) == order
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_a_full_queue_refuses_and_says_when_to_come_again(generation):
    slow = Slow()

    async def ask():
        first = asyncio.create_task(generation.write(slow, never))
        await until(slow.begun.is_set)
        others = [asyncio.create_task(generation.write(lambda _: "other", never)) for _ in range(2)]
        await until(lambda: generation.num_waiting == 2)
        with pytest.raises(Problem) as refused:
            await generation.write(lambda _: "one too many", never)
        slow.end.set()
        return refused.value, await first, await asyncio.gather(*others)

    refused, first, others = asyncio.run(ask())
    assert (refused.status_code, refused.error_type) == (429, "overloaded")
    assert int(refused.headers["Retry-After"]) >= 1
    assert "2 others wait" in refused.detail
    assert (first, others) == ("a text", ["other", "other"])


def test_a_caller_who_leaves_is_forgotten_at_the_next_token(generation):
    slow = Slow()

    async def ask():
        gone = asyncio.Event()
        first = asyncio.create_task(generation.write(slow, gone.wait))
        await until(slow.begun.is_set)
        gone.set()
        with pytest.raises(Problem) as left:
            await first
        return left.value.status_code, await generation.write(lambda _: "the next", never)

    assert asyncio.run(ask()) == (499, "the next")
    tokens = slow.tokens
    time.sleep(0.05)
    assert slow.tokens == tokens, "it is still being written"


def test_a_caller_who_leaves_the_queue_makes_room(generation):
    slow, written = Slow(), []

    async def ask():
        gone = asyncio.Event()
        first = asyncio.create_task(generation.write(slow, never))
        await until(slow.begun.is_set)
        waiting = [asyncio.create_task(generation.write(lambda _: written.append(1), gone.wait)) for _ in range(2)]
        await until(lambda: generation.num_waiting == 2)
        gone.set()
        await asyncio.wait(waiting)
        assert generation.num_waiting == 0
        assert all(isinstance(task.exception(), Problem) for task in waiting)
        slow.end.set()
        await first

    asyncio.run(ask())
    assert not written


def test_time_is_up_for_the_one_who_is_written_for_and_the_one_who_waits(generation):
    slow = Slow()
    generation.seconds = 0.2

    async def ask():
        return await asyncio.gather(
            generation.write(slow, never), generation.write(slow, never), return_exceptions=True
        )

    for problem in asyncio.run(ask()):
        assert (problem.status_code, problem.error_type) == (504, "timeout")
        assert "within 0.2 seconds" in problem.detail
    generation.seconds = 20
    assert asyncio.run(generation.write(lambda _: "the next", never)) == "the next"


def test_what_fails_is_the_callers_alone(generation, caplog):
    def wrong(on_token):
        raise InputError("say more")

    def broken(on_token):
        raise MemoryError("no more memory")

    with pytest.raises(InputError, match="say more"):
        asyncio.run(generation.write(wrong, never))
    with caplog.at_level(logging.ERROR), pytest.raises(ModelError, match="cannot write this text: no more memory"):
        asyncio.run(generation.write(broken, never))
    assert "MemoryError" in caplog.text
    assert asyncio.run(generation.write(lambda _: "the next", never)) == "the next"


def test_an_end_gives_up_those_who_wait():
    generation, slow = Generation(), Slow()

    async def ask():
        first = asyncio.create_task(generation.write(slow, never))
        await until(slow.begun.is_set)
        waiting = asyncio.create_task(generation.write(lambda _: "other", never))
        await until(lambda: generation.num_waiting == 1)
        generation.close()
        with pytest.raises(Problem, match="is ending"):
            await waiting
        with pytest.raises(Problem, match="is ending"):
            await generation.write(lambda _: "late", never)
        slow.end.set()
        return await first

    assert asyncio.run(ask()) == "a text"
