"""How quickly `langptune serve` ranks for many callers, and what it makes of requests that are none.

    python benches/serving_load.py --folder DIR [--out TABLE.md]

Makes a run in DIR unless it is there: 10,000 items with made-up texts, and the two embedded models as they come. Serves
it by the command, in a process of its own, and measures from here, on the same cores:

- seconds until it is ready, at the first start, which embeds the catalog, and at the next, and the first answer;
- 60 seconds of 30 requests a second from concurrent callers, each a profile of 64 tokens that no one sent before, for
  20 items. A request's time counts from the moment when it was due, whether or not a caller was free;
- edits, one after the other: a sentence is rewritten, and both rankings are answered;
- texts that the policy writes, one after the other;
- 1,000 malformed requests: by the OpenAPI document, against it, and whole ones that were damaged;
- the memory of the server before, while, and after.

Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np

TOKENS = 64
K = 20
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1e308, 10**30, 0.5, "", "x", "\0", "\ud800", "🚂" * 50, [], {}, [[]], {"a": {}}),
    *("x" * 5000, float("nan"), "<|im_end|>", "<script>", -(2**63), [None], {"text": None}),
)
"""What stands in a damaged body in place of something else."""
WHOLE: dict[str, Any] = {
    "/v2/recommend": {"profile": {"text": "Slow. Red.", "weights": {"Red.": 2}, "requests": {"x": 1}}, "k": 3},
    "/v2/explain": {"profile": {"text": "Slow. Red."}, "item": "i1", "by": "word", "exclude": ["i2"]},
    "/v2/steer": {"profile": {"text": "Slow. Red."}, "edits": [{"kind": "weigh", "sentence": 1, "weight": 2}]},
    "/v2/profile": {"history": [{"item": "i1", "rating": 3, "review": "good"}]},
    "/v2/propose": {"text": "Slow. Red.", "instruction": "less red"},
    "/v2/users/u3/undo": {"expected_version": 0, "changed_by": "ada"},
    "/v2/users/u3/profile": {"expected_version": 5, "changed_by": "ada"},
}
"""A request to each address that takes a body, which is damaged."""
_WORDS = tuple(
    word
    for line in (
        "slow quiet loud red old new strange science fiction trains dragons kitchens jazz winter night river city war",
        "peace comedy drama heart detective robots cooking gardens mountains ocean letters school family island violin",
    )
    for word in line.split()
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the run is, or is made")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=30, help="requests a second")
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--texts", type=int, default=5, help="that the policy writes")
    parser.add_argument("--malformed", type=int, default=1_000)
    parser.add_argument("--out", type=Path, help="a file for the table")
    arguments = parser.parse_args()
    run = made_run(arguments.folder, arguments.items)
    rows: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as cache:
        environment = {**os.environ, "LANGPTUNE_CACHE": cache}
        with served(run, arguments.folder, environment) as server:
            rows.append(("seconds until ready, the first start", f"{server.seconds:.1f}"))
        with served(run, arguments.folder, environment) as server:
            rows.append(("seconds until ready, the next start", f"{server.seconds:.1f}"))
            rows += measured(server, arguments)
    command = f"python benches/serving_load.py {' '.join(sys.argv[1:])}"
    table = "\n".join([f"`{command}`", "", "| what | measured |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])
    print(table)
    if arguments.out:
        arguments.out.write_text(table + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Server:
    """A server that runs: its address, its process, and the seconds that it took to be ready."""

    url: str
    pid: int
    seconds: float

    @property
    def memory(self) -> int:
        """MiB that are in memory now."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmRSS:\s+(\d+)", status)
        return int(found[1]) // 1024 if found else 0


def measured(server: Server, arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """The rows of the table."""
    texts = profiles(round(arguments.rate * arguments.seconds) + arguments.edits + 1)
    rows: list[tuple[str, str]] = []
    start = time.perf_counter()
    ask(server.url, "POST", "/v2/recommend", recommendation(texts.pop()))
    rows.append(("first answer, ms", f"{1000 * (time.perf_counter() - start):.0f}"))
    memory, seconds, errors = [server.memory], [], 0
    asked, texts = texts[arguments.edits :], texts[: arguments.edits]
    for quarter in np.array_split(np.arange(len(asked)), 4):
        found = load(server.url, [asked[place] for place in quarter], arguments.rate, arguments.callers)
        memory.append(server.memory)
        seconds += found.seconds
        errors += found.errors
    rows.append(
        (
            f"{arguments.seconds:g} s at {arguments.rate:g} requests a second: p50, p95, p99, ms",
            quantiles(seconds),
        )
    )
    rows.append(("of them answered otherwise than with 200", f"{errors} of {len(seconds)}"))
    rows.append(("memory before and after each quarter of them, MiB", ", ".join(map(str, memory))))
    edits = [timed(partial(edit, server.url, text)) for text in texts]
    rows.append((f"{arguments.edits} edits, one after the other: p50, p95, p99, ms", quantiles(edits)))
    written = [timed(partial(write, server.url, number)) for number in range(arguments.texts)]
    rows.append((f"{arguments.texts} texts that the policy writes: p50, p95, p99, ms", quantiles(written)))
    statuses = malformed(server.url, arguments.malformed)
    counts = ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))
    rows.append((f"{sum(statuses.values()):,} malformed requests, by status", counts))
    rows.append(("of them answered with 500", str(statuses[500])))
    rows.append(("memory at the end, MiB", str(server.memory)))
    return rows


def made_run(folder: Path, num_items: int) -> Path:
    """A run with the embedded models over a made-up catalog, made unless it is there."""
    from langptune_rs.config import RunConfig, to_toml
    from langptune_rs.models.embedder import Embedder
    from langptune_rs.models.policy import Policy

    run, source = folder / f"run-{num_items}", folder / f"source-{num_items}"
    if (run / "policy").is_dir():
        return run
    random = np.random.default_rng(0)
    source.mkdir(parents=True, exist_ok=True)

    def words(count: int) -> str:
        return " ".join(random.choice(_WORDS, count))

    items = ({"item_id": f"i{i}", "title": f"{words(3)} {i}", "description": f"{words(40)}."} for i in range(num_items))
    num_users = max(20, num_items // 5)
    interactions = (
        {
            "user_id": f"u{user}",
            "item_id": f"i{item}",
            "rating": int(random.integers(1, 6)),
            "timestamp": 100 * user + t,
        }
        for user in range(num_users)
        for t, item in enumerate(random.choice(num_items, min(40, num_items), replace=False).tolist())
    )
    for name, rows in (("items", items), ("interactions", interactions)):
        with (source / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    config = RunConfig.model_validate(
        {
            "data": {"source": str(source.absolute()), "windows": "last", "min_interactions": 2},
            "policy": {"model": "smollm2-135m-instruct"},
            "embedder": {"model": "all-minilm-l6-v2"},
            "profile": {"max_tokens": TOKENS},
            "engine": {"precision": "fp32"},
        }
    )
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.toml").write_text(to_toml(config), encoding="utf-8")
    Embedder.load(config.embedder).save(run / "embedder")
    Policy.load(config.policy).save(run / "policy")
    return run


@contextmanager
def served(run: Path, folder: Path, environment: dict[str, str]) -> Iterator[Server]:
    """The run behind the command, ready to answer."""
    store = Path(tempfile.mkdtemp(dir=folder)) / "edits.sqlite"
    code = "from langptune_cli.app import main; main()"
    command = [sys.executable, "-c", code, "serve", str(run), "--port", "0", "--store", f"sqlite:///{store}"]
    log = (folder / "serve.log").open("w+", encoding="utf-8")
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=log, env=environment)
    try:
        while not (found := re.search(r"on (http://\S+)[\s\S]*Ready", Path(log.name).read_text(encoding="utf-8"))):
            if process.poll() is not None:
                sys.exit(Path(log.name).read_text(encoding="utf-8"))
            time.sleep(0.05)
        yield Server(found[1], process.pid, time.perf_counter() - start)
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def profiles(count: int, seed: int = 0) -> list[str]:
    """Texts of about `TOKENS` tokens in sentences, each another one."""
    chance = random.Random(seed)
    return [
        " ".join(f"{' '.join(chance.choices(_WORDS, k=14)).capitalize()}." for _ in range(4)) + f" Number {number}."
        for number in range(count)
    ]


def recommendation(text: str) -> dict[str, Any]:
    """The body of a request for the nearest items."""
    return {"profile": {"text": text}, "k": K}


def ask(url: str, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """The status and the content of an answer, over a connection of its own."""
    place = urlsplit(url)
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    headers = {} if content is None else {"Content-Type": "application/json"}
    with closing(http.client.HTTPConnection(place.hostname or "", place.port, timeout=180)) as connection:
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


@dataclass(frozen=True)
class Load:
    """Seconds of each request from when it was due, and how many were not answered with 200."""

    seconds: list[float]
    errors: int


def load(url: str, texts: Sequence[str], rate: float, callers: int) -> Load:
    """Ask for a recommendation for each text, `rate` a second, from concurrent callers."""
    begin = time.perf_counter() + 0.1

    def one(number: int) -> tuple[float, bool]:
        due = begin + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        try:
            status, _ = ask(url, "POST", "/v2/recommend", recommendation(texts[number]))
        except (http.client.HTTPException, OSError):
            status = 0
        return time.perf_counter() - due, status == 200

    with ThreadPoolExecutor(callers) as pool:
        found = list(pool.map(one, range(len(texts))))
    return Load([seconds for seconds, _ in found], sum(not is_right for _, is_right in found))


def edit(url: str, text: str) -> None:
    """Rewrite the first sentence of a profile, and see the rankings."""
    edited = "Only musicals, please. " + text.partition(". ")[2]
    body = {"profile": {"text": text}, "edits": [{"kind": "rewrite", "text": edited}], "k": K}
    status, content = ask(url, "POST", "/v2/steer", body)
    if status != 200:
        sys.exit(f"an edit was answered with {status}: {content!r}")


def write(url: str, user: int) -> None:
    """Let the policy write a profile."""
    status, content = ask(url, "POST", "/v2/profile", {"user": f"u{user}"})
    if status != 200:
        sys.exit(f"a profile was answered with {status}: {content!r}")


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def quantiles(seconds: Sequence[float]) -> str:
    """The median, and what 95 and 99 of 100 stay under, in milliseconds."""
    return ", ".join(f"{1000 * found:.0f}" for found in np.quantile(seconds, [0.5, 0.95, 0.99])) if seconds else "none"


def malformed(url: str, count: int) -> Counter[int]:
    """How often each status answers `count` requests: a third by the OpenAPI document, a third against it, the others
    damaged."""
    statuses: Counter[int] = Counter()
    document = json.loads(ask(url, "GET", "/v2/openapi.json")[1])
    for method, path, body in described(document, count // 3):
        statuses[answered(url, method, path, body)] += 1
    chance = random.Random(0)
    while statuses.total() < count:
        path, content = damaged_request(chance)
        statuses[answered(url, "POST", path, content)] += 1
    return statuses


def answered(url: str, method: str, path: str, body: bytes | None) -> int:
    """The status of an answer; 0 where the connection was closed instead."""
    try:
        return ask(url, method, path, body)[0]
    except (http.client.HTTPException, OSError, ValueError, UnicodeError):
        return 0


def described(document: dict[str, Any], count: int) -> Iterator[tuple[str, str, bytes | None]]:
    """About `count` requests that the document allows, and as many that it does not, over all of its addresses."""
    import schemathesis
    from schemathesis import GenerationMode

    found: list[Any] = list(schemathesis.openapi.from_dict(document).get_all_operations())
    operations = [operation.ok() for operation in found]
    for operation in operations:
        for mode in GenerationMode:
            yield from _examples(operation, mode, -(-count // len(operations)))


def _examples(operation: Any, mode: Any, count: int) -> list[tuple[str, str, bytes | None]]:
    """At most `count` requests to an address."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable

    found: list[tuple[str, str, bytes | None]] = []

    @settings(
        max_examples=count,
        phases=[Phase.generate],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode))
    def collect(case: Any) -> None:
        sent = case.as_transport_kwargs(base_url="http://127.0.0.1")
        path = urlsplit(sent["url"]).path or "/"
        query = urlencode(sent.get("params") or {}, doseq=True, errors="surrogatepass")
        body = json.dumps(sent["json"]).encode() if "json" in sent else None
        found.append((sent["method"], f"{path}?{query}" if query else path, body))

    with suppress(Unsatisfiable):  # an address without parameters cannot be asked wrongly
        collect()
    return found


def damaged(body: Any, chance: random.Random) -> Any:
    """The body with one value, somewhere in it, in place of another; or a key more, or one less."""
    if not isinstance(body, dict | list) or not body or chance.random() < 0.2:
        return chance.choice(VALUES)
    place = chance.choice(list(body)) if isinstance(body, dict) else chance.randrange(len(body))
    changed: Any = body.copy()
    kind = chance.random()
    if kind < 0.1:
        del changed[place]
    elif kind < 0.2 and isinstance(changed, dict):
        changed[chance.choice(("extra", "\ud800", "", "text"))] = chance.choice(VALUES)
    else:
        changed[place] = damaged(body[place], chance)
    return changed


def damaged_request(chance: random.Random) -> tuple[str, bytes]:
    """An address and a body that is none any more; some have other bytes in the middle."""
    path = chance.choice(sorted(WHOLE))
    content = json.dumps(damaged(WHOLE[path], chance)).encode()
    if chance.random() < 0.3:
        place = chance.randrange(len(content) + 1)
        content = content[:place] + chance.randbytes(chance.randrange(3)) + content[place + chance.randrange(3) :]
    return path, content


if __name__ == "__main__":
    main()
