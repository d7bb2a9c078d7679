"""The order of the rooms: imports run one way, no two files import each other, and each room keeps to its libraries.

`ROOMS` is the house from the ground up. A file may import from its own room and from those before it. A file that no
room claims fails here too, so whoever adds a room says where it stands.
"""

import ast
import graphlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (ROOT / "python" / "langptune_rs", ROOT / "cli" / "langptune_cli")

ROOMS = (
    "langptune_rs._core",
    "langptune_rs.errors",
    (
        "langptune_rs.arrays",
        "langptune_rs.files",
        "langptune_rs.peak_memory",
        "langptune_rs.progress",
        "langptune_rs.seeds",
    ),
    "langptune_rs.config",
    ("langptune_rs.evaluation", "langptune_rs.packing"),
    "langptune_rs",
    "langptune_rs.data.wording",
    "langptune_rs.data.store",
    "langptune_rs.data.readers",
    "langptune_rs.data.sources",
    "langptune_rs.data.preparing",
    "langptune_rs.data.inspection",
    "langptune_rs.data",
    "langptune_rs.distributed",
    "langptune_rs.models",
    ("langptune_rs.recommending", "langptune_rs.rollout"),
    "langptune_rs.runs",
    "langptune_rs.training",
    "langptune_rs.baselines",
    "langptune_rs.experiments",
    ("langptune_rs.describing", "langptune_rs.serving"),
    "langptune_cli",
)
"""From the ground up; rooms in one tuple stand side by side and know nothing of each other."""

LIBRARIES = {
    "langptune_rs.errors": set(),
    "langptune_rs.arrays": {"numpy"},
    "langptune_rs.files": {"filelock"},
    "langptune_rs.peak_memory": set(),
    "langptune_rs.progress": {"rich"},
    "langptune_rs.seeds": {"numpy"},
    "langptune_rs.config": {"pydantic"},
    "langptune_rs.evaluation": {"numpy"},
    "langptune_rs.packing": {"numpy"},
    "langptune_rs": {"numpy"},
    "langptune_rs.distributed": {"deepspeed", "torch"},
    "langptune_rs.data": {
        *("datasets", "filelock", "huggingface_hub", "jinja2", "matplotlib", "numpy", "orjson", "polars", "pyarrow"),
        *("rich", "tokenizers", "torch"),
    },
    "langptune_rs.serving": {
        *("fastapi", "numpy", "polars", "prometheus_client", "pyarrow", "pydantic", "rich", "sqlalchemy"),
        *("starlette", "uvicorn"),
    },
    "langptune_cli": {"click", "typer"},
}
"""What a room may import beside the standard library. Rooms that are not named here take what they need."""
SERVERS = {"fastapi", "prometheus_client", "psycopg", "sqlalchemy", "starlette", "uvicorn"}
"""Libraries that only the room takes that serves."""


@dataclass(frozen=True)
class Import:
    """One module that a file names, at some line."""

    file: Path
    line: int
    module: str
    target: str
    is_in_string: bool = False


class HouseError(AssertionError):
    """Something stands in the wrong room."""


def modules_of(packages: tuple[Path, ...]) -> dict[str, Path]:
    """Every module of the packages and its file."""
    modules = {}
    for package in packages:
        for file in sorted(package.rglob("*.py")):
            name = ".".join((package.name, *file.relative_to(package).with_suffix("").parts))
            modules[name.removesuffix(".__init__")] = file
    return modules


def imports_of(file: Path, module: str, known: dict[str, Path]) -> Iterator[Import]:
    """What a file imports of the packages, wherever it does so, and the modules it names in strings."""
    tops = {name.partition(".")[0] for name in known}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        targets: list[str] = []
        is_in_string = isinstance(node, ast.Constant)
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [name if name in known or name.endswith("._core") else node.module for name in inner]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in known:
            targets = [node.value] if "." in node.value else []
        for target in dict.fromkeys(targets):
            if target.partition(".")[0] in tops and target != module:
                yield Import(file, node.lineno, module, target, is_in_string)


def room_of(module: str) -> tuple[int, str]:
    """Where a module's room stands, and its name; the longest room that holds the module counts."""
    names = [
        (floor, name) for floor, level in enumerate(ROOMS) for name in ([level] if isinstance(level, str) else level)
    ]
    holding = [(floor, name) for floor, name in names if module == name or module.startswith(f"{name}.")]
    floor, name = max(holding, key=lambda place: len(place[1]))
    if name in ("langptune_rs", "langptune_rs.data") and module != name:
        raise HouseError(f"{module} stands in no room. Move it into one, or say in ROOMS where its room stands.")
    return floor, name


def check_directions(packages: tuple[Path, ...]) -> None:
    """Raise `HouseError` for files that import from a room above their own, or beside it."""
    known, faults = modules_of(packages), []
    for module, file in known.items():
        floor, room = room_of(module)
        for found in imports_of(file, module, known):
            other_floor, other = room_of(found.target)
            if other != room and other_floor >= floor:
                place = "above" if other_floor > floor else "beside"
                faults.append(
                    f"{file.name}, line {found.line}: {module} stands in {room} and imports {found.target}, which "
                    f"stands {place} it in {other}."
                )
    if faults:
        advice = "Move what is shared to a room below both, or move the file."
        raise HouseError("\n".join([*faults, advice]))


def check_circles(packages: tuple[Path, ...]) -> None:
    """Raise `HouseError` for files that import each other, over however many others."""
    known = modules_of(packages)
    graph = {
        module: {f.target for f in imports_of(file, module, known) if not f.is_in_string} & known.keys()
        for module, file in known.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise HouseError(f"These files import each other: {' <- '.join(error.args[1])}.") from None


def check_libraries(packages: tuple[Path, ...]) -> None:
    """Raise `HouseError` for libraries that a room does not take."""
    known, faults = modules_of(packages), []
    free = {package.name for package in packages} | sys.stdlib_module_names
    for module, file in known.items():
        room = room_of(module)[1]
        allowed = LIBRARIES.get("langptune_rs.data" if room.startswith("langptune_rs.data") else room)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module.partition(".")[0]]
            faults += [
                f"{file.name}, line {node.lineno}: {room} does not take the library {name}."
                for name in names
                if (name in SERVERS and room != "langptune_rs.serving")
                or (allowed is not None and name not in allowed | free)
            ]
    if faults:
        raise HouseError("\n".join(faults))


@pytest.mark.parametrize("check", [check_directions, check_circles, check_libraries])
def test_the_house_stands(check):
    check(PACKAGES)


def house(folder: Path, **files: str) -> tuple[Path, ...]:
    """A package with these files, `__` in their names for a slash."""
    package = folder / "langptune_rs"
    for name, content in files.items():
        file = package / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    return (package,)


@pytest.mark.parametrize(
    ("check", "files", "message"),
    [
        (
            check_directions,
            {"config__engine": "from langptune_rs.training.engines import Engine", "training__engines": ""},
            "stands in langptune_rs.config and imports langptune_rs.training.engines, which stands above it",
        ),
        (
            check_directions,
            {
                "rollout__writer": "def write():\n    import langptune_rs.recommending.recommender",
                "recommending__recommender": "",
            },
            "line 2: .* beside it",
        ),
        (
            check_directions,
            {"data__sources__csv": "from langptune_rs.data.preparing import filters", "data__preparing__filters": ""},
            "imports langptune_rs.data.preparing.filters",
        ),
        (
            check_directions,
            {"distributed__launch": 'RUN = "langptune_rs.experiments.run"', "experiments__run": ""},
            "imports langptune_rs.experiments.run",
        ),
        (check_directions, {"helpers": ""}, "langptune_rs.helpers stands in no room"),
        (check_directions, {"data__helpers": ""}, "langptune_rs.data.helpers stands in no room"),
        (
            check_circles,
            {
                "models__policy": "from langptune_rs.models import tokens",
                "models__tokens": "def count():\n    from langptune_rs.models.weights import find",
                "models__weights": "from langptune_rs.models.policy import Policy",
            },
            "import each other: .*langptune_rs.models",
        ),
        (
            check_libraries,
            {"evaluation__index": "import torch"},
            "langptune_rs.evaluation does not take the library torch",
        ),
        (check_libraries, {"runs__folder": "import sqlalchemy.orm"}, "langptune_rs.runs does not take .* sqlalchemy"),
        (check_libraries, {"config__run": "def f():\n    from polars import col"}, "line 2: .* polars"),
    ],
)
def test_what_stands_in_the_wrong_place_is_found(check, files, message, tmp_path):
    with pytest.raises(HouseError, match=message):
        check(house(tmp_path, **files))


def test_every_room_is_there():
    modules = modules_of(PACKAGES)
    for level in ROOMS:
        for room in [level] if isinstance(level, str) else level:
            found = room in modules or any(module.startswith(f"{room}.") for module in modules)
            assert found or room.endswith("._core"), f"{room} has no file"
