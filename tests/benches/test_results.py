"""What the tables of benches/peers/results.py say of times that were measured."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

BENCHES = Path(__file__).parents[2] / "benches"


@pytest.fixture(scope="module")
def results():
    """The script as a module; it imports its neighbours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHES))
        spec = importlib.util.spec_from_file_location("results", BENCHES / "peers" / "results.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
        for name in ("peers.ranking", "peers.side_by_side", "peers"):
            sys.modules.pop(name, None)


@pytest.fixture
def ranking(results):
    """Seconds at the small size: faiss is slower on two threads than on one."""
    rank, search, approximate = results.OURS["rank"], results.OURS["search"], results.APPROXIMATE
    matmul = "numpy: float32 matmul alone"
    faiss, torch, top_k = (
        "faiss: IndexFlatIP.search 20",
        "torch: matmul, count above the target",
        "torch: matmul, topk 20",
    )
    one = {torch: 8.0, top_k: 6.0, faiss: 3.0, matmul: 4.0, rank: 2.0, search: 1.0, approximate: 1.5}
    two = {torch: 4.0, top_k: 3.5, faiss: 5.0, matmul: 2.0, rank: 1.0, search: 0.5, approximate: 0.8}
    return {("small", 1): one, ("small", 2): two}


@pytest.mark.parametrize(
    ("machine", "place"),
    [
        ("Intel(R) Xeon(R) Processor, 2 cores", "intel-xeon-2-cores"),
        ("AMD EPYC 7763 64-Core Processor, 4 cores", "amd-epyc-7763-64-core-4-cores"),
        ("Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz, 12 cores", "intel-core-i7-8700-12-cores"),
    ],
)
def test_a_machine_has_its_place_in_the_file_name(results, machine, place):
    assert results.hardware(machine) == place


def test_every_file_of_results_is_named_by_the_rule():
    files = [path for path in (BENCHES / "results").iterdir() if path.name != "README.md"]
    for path in files:
        assert re.fullmatch(r"[a-z0-9-]+-\d{4}-\d\d-\d\d\.(md|png)", path.name), path.name
        assert path.with_suffix(".md") in files, path.name


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_a_peer_that_is_faster_on_one_thread_counts_for_two_as_well(results, ranking):
    rows = cells(results.summary_table(ranking))[2:]
    faiss = "faiss: IndexFlatIP.search 20, 1 thread: 3,000 ms"
    assert [row[1:] for row in rows] == [
        ["torch: matmul, count above the target, 1 thread: 8,000 ms", "2,000 ms", "4.0 x"],
        [faiss, "1,000 ms", "3.0 x"],
        [f"{results.APPROXIMATE}: 1,500 ms", "2,000 ms", "1 / 1.33"],
        ["torch: matmul, count above the target, 2 threads: 4,000 ms", "1,000 ms", "4.0 x"],
        [faiss, "500 ms", "6.0 x"],
        [f"{results.APPROXIMATE}: 800 ms", "1,000 ms", "1 / 1.25"],
    ]
    assert rows[3][0] == "rank, 96 users x 3,000 items x 64 dimensions, 2 threads"


def test_a_run_whose_threads_gain_nothing_is_flagged(results, ranking):
    one, two = ranking.values()
    assert results.disturbance(one, two) is None
    warning = results.disturbance(one, {**two, "numpy: float32 matmul alone": 3.9})
    assert "numpy: float32 matmul alone: 4,000 ms and 3,900 ms" in warning
    assert results.OURS["rank"] in results.disturbance(one, {**two, results.OURS["rank"]: 1.9})


def estimates(folder, group, function, value, throughput, nanoseconds):
    new = folder / group / function / value / "new"
    new.mkdir(parents=True)
    (new / "sample.json").write_text(json.dumps({"iters": [1, 3], "times": [2 * nanoseconds, 3 * nanoseconds]}))
    median = 2 * nanoseconds if group == "ceiling" else nanoseconds
    (new / "estimates.json").write_text(json.dumps({"median": {"point_estimate": median}}))
    (new / "benchmark.json").write_text(
        json.dumps({"group_id": group, "full_id": f"{group}/{function}/{value}", "throughput": throughput})
    )


def test_kernels_stand_against_their_ceilings(results, ranking, tmp_path):
    fastest = results.FASTEST
    estimates(tmp_path, "ceiling", "exact", fastest, {"Elements": 1000}, 10)
    estimates(tmp_path, "ceiling", "Sixteen", fastest, {"Elements": 4000}, 10)
    estimates(tmp_path, "ceiling", "reading", "memory", {"Bytes": 200}, 10)
    estimates(tmp_path, "ceiling", "reading", "cache", {"Bytes": 500}, 10)
    estimates(tmp_path, "block paper", "exact", fastest, {"ElementsAndBytes": {"elements": 900, "bytes": 100}}, 10)
    estimates(tmp_path, "block large", "Sixteen", fastest, {"ElementsAndBytes": {"elements": 3000, "bytes": 50}}, 10)
    rates = results.read_rates(tmp_path)
    assert rates["block paper/exact/" + fastest] == (90, 10)
    assert cells(results.blocks_table(rates))[2:] == [
        [f"Sixteen/{fastest}, 384 dimensions", "300", "75%", "5.0", "10%"],
        [f"exact/{fastest}, 512 dimensions", "90", "90%", "10.0", "20%"],
    ]
    assert cells(results.ceilings_table(rates))[2:] == [
        [f"Sixteen/{fastest}", "400", ""],
        [f"exact/{fastest}", "100", ""],
        ["reading/cache", "", "50"],
        ["reading/memory", "", "20"],
    ]
    seconds = {results.OURS["rank"]: 2 * 96 * 3000 * 64 / 200e9}  # half of the ceiling
    rows = cells(results.whole_table({("small", 1): seconds, ("small", 2): seconds}, rates))[2:]
    assert rows == [[f"rank, {fastest}; small", "200", "50%", "2.1", "10%"]]
