"""One service for many threads: the answers are those that one thread gets."""

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread

import numpy as np
import pytest
from tests.experiments.tiny import make_run

from langptune_rs.models.quiet import quiet
from langptune_rs.recommending.edits import Weigh
from langptune_rs.serving.encoding import NUM_KEPT, TEXTS_PER_TURN, SharedEncoder
from langptune_rs.serving.lazy import Lazy
from langptune_rs.serving.service import ProfileService

THREADS = 8
PROFILES = [f"Slow trains, number {i}. And {i} red dragons! Old kitchens too." for i in range(12)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("threads"), samples=0)


def answers(service: ProfileService, i: int) -> list[object]:
    """What the service says to one caller; scores are rounded, since a batch rounds its last digits."""
    steering = service.steer(PROFILES[i], Weigh(2, 0.5))
    explanation = service.explain(PROFILES[i], i)
    return [
        service.profile([i, i + 1], [4.0, None]),
        service.profile([i, i + 1], trained=False),
        service.propose(PROFILES[i], "less trains"),
        [(item, round(score, 5)) for item, _, score in service.recommend(PROFILES[i], k=5)],
        steering.after.items[:5].tolist(),
        [(part.part.text, round(part.effect, 4)) for part in explanation.parts],
    ]


def test_answers_to_many_threads_are_those_to_one(run):
    alone = ProfileService.open(run)
    expected = [answers(alone, i) for i in range(len(PROFILES))]
    shared = ProfileService.open(run)  # no model is loaded yet, so all threads ask for all of them at once
    begin = Barrier(THREADS)

    def ask(thread: int) -> list[list[object]]:
        begin.wait(60)
        order = [(thread + i) % len(PROFILES) for i in range(len(PROFILES))]
        found = {i: answers(shared, i) for i in order}
        return [found[i] for i in range(len(PROFILES))]

    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(ask, range(THREADS)):
            assert found == expected


class Counting:
    """An embedder of one number, the length of a text, which notes its batches; "bad" cannot be embedded."""

    dim = 1

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.free = Event()
        self.free.set()
        self.entered = Event()

    def encode_profiles(self, texts):
        self.entered.set()
        assert self.free.wait(30)
        self.batches.append(list(texts))
        if "bad" in texts:
            raise ValueError("bad cannot be embedded")
        return np.array([[len(text)] for text in texts], dtype=np.float32)

    def unread_profile(self, text):
        return ""


def test_texts_that_come_while_the_embedder_is_busy_are_one_batch():
    embedder = Counting()
    encoder = SharedEncoder(embedder)
    embedder.free.clear()
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(encoder.encode_profiles, ["first"])
        assert embedder.entered.wait(30)
        others = [pool.submit(encoder.encode_profiles, ["x" * i, "shared"]) for i in range(1, 5)]
        while len(encoder._waiting) < 5:
            pass
        embedder.free.set()
        assert first.result().tolist() == [[5]]
        assert [other.result().tolist() for other in others] == [[[i], [6]] for i in range(1, 5)]
    assert embedder.batches[0] == ["first"]
    assert sorted(embedder.batches[1]) == sorted(["shared", *("x" * i for i in range(1, 5))])
    assert len(embedder.batches) == 2


def test_what_is_known_is_not_embedded_again_and_what_is_kept_is_bounded():
    embedder = Counting()
    encoder = SharedEncoder(embedder)
    assert encoder.encode_profiles([]).shape == (0, 1)
    assert encoder.encode_profiles(["a", "bb", "a"]).tolist() == [[1], [2], [1]]
    assert encoder.encode_profiles(["bb", "ccc"]).tolist() == [[2], [3]]
    assert embedder.batches == [["a", "bb"], ["ccc"]]
    encoder.encode_profiles([str(i) for i in range(NUM_KEPT)])
    assert max(map(len, embedder.batches)) == TEXTS_PER_TURN
    encoder.encode_profiles(["a"])
    assert embedder.batches[-1] == ["a"]
    assert len(encoder._kept) == NUM_KEPT


def test_a_text_that_fails_takes_no_other_with_it():
    embedder = Counting()
    encoder = SharedEncoder(embedder)
    embedder.free.clear()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(encoder.encode_profiles, ["first"])
        assert embedder.entered.wait(30)
        good, bad = (pool.submit(encoder.encode_profiles, [text]) for text in ("good", "bad"))
        while len(encoder._waiting) < 2:
            pass
        embedder.free.set()
        assert first.result().tolist() == [[5]]
        assert good.result().tolist() == [[4]]
        with pytest.raises(ValueError, match="bad cannot"):
            bad.result()
    with pytest.raises(ValueError, match="bad cannot"):
        encoder.encode_profiles(["bad"])


def test_a_lazy_value_is_made_once_and_again_after_a_failure():
    made = []

    def make() -> int:
        made.append(1)
        if len(made) == 1:
            raise OSError("not yet")
        return 7

    lazy = Lazy(make)
    with pytest.raises(OSError, match="not yet"):
        lazy()
    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(lambda _: lazy(), range(THREADS))) == [7] * THREADS
    assert len(made) == 2


def test_what_other_threads_print_is_shown_and_blocks_do_not_overlap(capsys):
    inside, go_on = Event(), Event()
    order = []

    def load() -> None:
        with quiet():
            inside.set()
            assert go_on.wait(30)
            print("noise")
            order.append("first")

    def load_later() -> None:
        with quiet():
            order.append("second")

    before = sys.stdout
    first, second = Thread(target=load), Thread(target=load_later)
    first.start()
    assert inside.wait(30)
    second.start()
    print("of this thread")
    go_on.set()
    first.join(30)
    second.join(30)
    assert order == ["first", "second"]
    assert capsys.readouterr().out == "of this thread\n"
    assert sys.stdout is before
