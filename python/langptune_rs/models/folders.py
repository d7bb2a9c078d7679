"""The folder of a model: which files are read, and whether they are whole.

What was damaged on its way here is found before a library reads it, so that an error names the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langptune_rs.errors import LangptuneError, ModelError, sentence

_POINTER = b"version https://git-lfs.github.com/spec/"
_INDEX = "model.safetensors.index.json"
_TEXTS = (
    *("config.json", "generation_config.json", "adapter_config.json", _INDEX),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "tekken.json", "tokenizer.model*", "tiktoken.model", "spm*.model"),
    *("spiece.model", "sentencepiece*.model", "source.spm", "target.spm"),
    *("chat_template.jinja", "chat_template.json", "processor_config.json", "preprocessor_config.json"),
    *("modules.json", "config_sentence_transformers.json", "sentence_*_config.json", "router_config.json"),
)
"""The files beside the weights that the libraries read. Others are the user's own, and may hold anything."""
_LONGEST_REASON = 500
"""Characters of a library's error that are shown."""
_REMEDY = "Download or copy it again."


def encoder_folder(folder: Path) -> Path:
    """The folder of the encoder inside that of a SentenceTransformer; any other folder is returned as it is."""
    return module_folders(folder)[0]


def module_folders(folder: Path) -> list[Path]:
    """The folder of each module of a SentenceTransformer; any other model is one module, in the folder itself.

    Raises `ModelError` for a modules.json that lists no modules.
    """
    file = folder / "modules.json"
    if not file.is_file():
        return [folder]
    modules = read_json(file)
    listed = modules if isinstance(modules, list) else []
    paths = [module["path"] for module in listed if isinstance(module, dict) and isinstance(module.get("path"), str)]
    if not paths or len(paths) != len(listed):
        raise ModelError(f"{file} does not list the modules of a SentenceTransformer, each with its path. {_REMEDY}")
    return [folder / path for path in paths]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights in `folder`: those of its index if there is one."""
    index = folder / _INDEX
    if not index.is_file():
        return [folder / "model.safetensors"]
    held = read_json(index)
    names = held.get("weight_map") if isinstance(held, dict) else None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{index} has no weight_map from each weight to its file. {_REMEDY}")
    return [folder / name for name in sorted(set(names.values()))]


def read_json(file: Path) -> Any:
    """What a JSON file holds. Raises `ModelError` naming the file when it is no JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} is no JSON: {sentence(str(error) or type(error).__name__)} {_REMEDY}") from error


def check_files(folder: Path) -> None:
    """Raise `ModelError` naming a file in `folder` that is damaged, or in a form that is not read.

    Damaged are a safetensors file that is cut short, a Git LFS pointer in place of a file, and a JSON file that is
    none. Pickled weights are refused, in every module of a SentenceTransformer.
    """
    check_texts(folder)
    for module in module_folders(folder):
        inside = (path for path in sorted(module.rglob("*")) if path.is_dir() and not path.name.startswith("."))
        for part in [folder] if module == folder else [module, *inside]:
            if part != folder:
                check_texts(part)
            pickled = sorted(part.glob("pytorch_model*.bin"))
            if pickled and not any(part.glob("*.safetensors")):
                raise ModelError(
                    f"{pickled[0]} is pickled, which can run any code while it is read. Weights are read from "
                    "safetensors only: save the model again with `save_pretrained`, which writes them."
                )
            for file in (*weight_files(part), part / "adapter_model.safetensors"):
                if file.is_file():
                    _check_weights(file)


def check_texts(folder: Path) -> None:
    """As `check_files`, for the configuration and the tokenizer only, and not in folders inside.

    Files that no library reads, such as data that lies beside the weights, are not looked at.
    """
    for file in _matching(folder, _TEXTS):
        _check_is_no_pointer(file)
        if file.suffix == ".json":
            read_json(file)


@contextmanager
def explained(what: str, folder: Path | str) -> Iterator[None]:
    """Raise a `ModelError` for whatever a library raises inside the block, while it reads `what` from `folder`."""
    try:
        yield
    except (LangptuneError, MemoryError):
        raise
    except Exception as error:  # tokenizers raises `Exception` itself, and every library has errors of its own
        if type(error).__name__ == "OutOfMemoryError":
            raise
        raise ModelError(
            f"The {what} in {folder} cannot be loaded: {_reason(error)} Check that its files are complete, and that "
            "the installed versions of the libraries know this kind of model."
        ) from error


def _reason(error: Exception) -> str:
    """What a library's error says, or the beginning of it, as a sentence."""
    said = sentence(str(error).strip() or type(error).__name__)
    return said if len(said) <= _LONGEST_REASON else f"{said[:_LONGEST_REASON].rstrip()} …"


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted(file for pattern in patterns for file in folder.glob(pattern) if file.is_file())


def _check_is_no_pointer(file: Path) -> None:
    with file.open("rb") as opened:
        if opened.read(len(_POINTER)) == _POINTER:
            raise ModelError(
                f"{file} is a Git LFS pointer, which only stands for the file. `git lfs pull` in the model's folder "
                "fetches it."
            )


def _check_weights(file: Path) -> None:
    """The size of a safetensors file's header comes first, then the header, which knows where each tensor ends."""
    _check_is_no_pointer(file)
    size = file.stat().st_size
    with file.open("rb") as opened:
        header_size = int.from_bytes(opened.read(8), "little")
        if size < 8 or header_size > size - 8:
            raise ModelError(f"{file} is cut short, or no safetensors file: it has {size:,} bytes. {_REMEDY}")
        try:
            header = json.loads(opened.read(header_size))
            end = max((x["data_offsets"][1] for name, x in header.items() if name != "__metadata__"), default=0)
            needed = int(8 + header_size + end)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ModelError(f"{file} is damaged, or no safetensors file: it has no header. {_REMEDY}") from error
    if size != needed:
        raise ModelError(f"{file} is damaged: by its header it has {needed:,} bytes, but there are {size:,}. {_REMEDY}")
