"""Public data sets: where they are, and fetching them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from langptune_rs.data.sources.files import Files
from langptune_rs.data.sources.transfer import PublishedSum, fetch
from langptune_rs.data.sources.unpacking import unpack
from langptune_rs.errors import DataError, nearest
from langptune_rs.files import cache_folder

_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_HUB = "https://huggingface.co/datasets/McAuley-Lab/Amazon-Reviews-2023/resolve/main/raw"
_UCSD = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2"
_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"


@dataclass(frozen=True)
class _Set:
    """Where a public set is, and which of its files plays which role."""

    base_url: str
    roles: dict[str, str]
    """Role -> the file's address below `base_url`, or for a zip its path inside the folder that the zip holds.
    `{category}` stands for the category."""
    published_sum: PublishedSum | None = None
    is_zip: bool = False

    @property
    def has_categories(self) -> bool:
        return "{category}" in "".join(self.roles.values())


def _movielens(interactions: str, items: str) -> _Set:
    return _Set(_GROUPLENS, {"interactions": interactions, "items": items}, "md5 beside", is_zip=True)


SETS = {
    "ml-100k": _movielens("u.data", "u.item"),
    "ml-1m": _movielens("ratings.dat", "movies.dat"),
    "ml-32m": _movielens("ratings.csv", "movies.csv"),
    "ml-latest": _movielens("ratings.csv", "movies.csv"),
    "ml-latest-small": _movielens("ratings.csv", "movies.csv"),
    "amazon-2023": _Set(
        _HUB,
        {"interactions": "review_categories/{category}.jsonl", "items": "meta_categories/meta_{category}.jsonl"},
        "linked etag",
    ),
    "amazon-2018": _Set(
        _UCSD, {"interactions": "categoryFiles/{category}.json.gz", "items": "metaFiles2/meta_{category}.json.gz"}
    ),
    "amazon-2014": _Set(_SNAP, {"interactions": "reviews_{category}.json.gz", "items": "meta_{category}.json.gz"}),
}


def set_names() -> list[str]:
    """The names that `download` takes. CATEGORY stands for the name of a category."""
    return [f"{name}/CATEGORY" if found.has_categories else name for name, found in SETS.items()]


def download_files(source: str, category: str | None, files: Files, mirror: str | None = None) -> Files:
    """Download a public set into the folder of `files`, or into the cache, and return `files` with what was found.

    `mirror` is another address to download from. Raises `DataError` when files are given already, for a source that is
    not a public set, for a set with categories without `category`, and as `download` does.
    """
    if files.items is not None or files.interactions is not None:
        raise DataError(
            "Files were given, so that there is nothing to --download. Give either the files or --download."
        )
    if source not in SETS:
        raise DataError(f"{source!r} is not a public set to --download. There are {', '.join(SETS)}.")
    if SETS[source].has_categories and category is None:
        raise DataError(f"{source} comes by category: say which with --category, such as Movies_and_TV or All_Beauty.")
    name = source if category is None else f"{source}/{category}"
    folder = files.folder or cache_folder() / "downloads" / source
    found = download(name, folder, base_url=mirror)
    return replace(files, folder=found["items"].parent, items=found["items"], interactions=found["interactions"])


def download(name: str, folder: str | Path, *, base_url: str | None = None) -> dict[str, Path]:
    """Fetch a public set, such as `ml-1m` or `amazon-2023/Movies_and_TV`, and return role -> file.

    The roles are `interactions` and `items`. Files that are in `folder` already, downloaded or put there by hand, are
    taken as they are. A download that was cut off goes on where it stopped. A file `FILE.sha256` beside each file has
    its size, address and SHA-256. `base_url` is the address of a mirror.

    Raises `DataError` for a name that is not in `set_names()`, when the disk is full, and when a file has twice another
    checksum than the server says. Without a network the error says which file to fetch from where.
    """
    found, category = _find(name)
    folder = Path(folder)
    base_url = (base_url or found.base_url).rstrip("/")
    if found.is_zip:
        return _zipped(name, found, folder, f"{base_url}/{name}.zip")
    addresses = {role: f"{base_url}/{quote(path.format(category=category))}" for role, path in found.roles.items()}
    files = {role: folder / path.format(category=category).split("/")[-1] for role, path in found.roles.items()}
    hint = _by_hand(name, {files[role].name: address for role, address in addresses.items()}, f"in {folder}")
    for role, file in files.items():
        fetch(addresses[role], file, found.published_sum, hint)
    return files


def _find(name: str) -> tuple[_Set, str]:
    """The set, and the category, which is empty for a set without categories."""
    head, slash, category = name.partition("/")
    found = SETS.get(head)
    if found is None:
        raise DataError(f"There is no public set {name!r}.{nearest(head, SETS)} There are {', '.join(set_names())}.")
    if found.has_categories and not re.fullmatch(r"[\w'.-]*\w", category):
        raise DataError(
            f"{name!r} names no category. Write it as the files do, such as {head}/Movies_and_TV or {head}/All_Beauty."
        )
    if slash and not found.has_categories:
        raise DataError(f"{head} has no categories, so {name!r} is not a public set. Write {head!r}.")
    return found, category


def _by_hand(name: str, addresses: dict[str, str], where: str) -> str:
    """What to do without a network."""
    files = "".join(f"\n  {file} from {address}" for file, address in addresses.items())
    return f"To have {name} without a network, fetch elsewhere and put {where}:{files}"


def _zipped(name: str, found: _Set, folder: Path, address: str) -> dict[str, Path]:
    files = {role: folder / name / path for role, path in found.roles.items()}
    if not (folder / name).exists():
        archive = folder / f"{name}.zip"
        hint = _by_hand(name, {archive.name: address}, f"in {folder}, as it is or unpacked to {folder / name}")
        fetch(address, archive, found.published_sum, hint)
        unpack(archive, folder / name)
    missing = [file for file in files.values() if not file.is_file()]
    if missing:
        raise DataError(
            f"{folder / name} lacks {missing[0].name}, so it is not the unpacked {name}.zip. Move it away and try "
            "again."
        )
    return files
