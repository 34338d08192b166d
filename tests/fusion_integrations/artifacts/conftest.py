"""A small artifact to save, load and damage."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fusion_integrations.artifacts import ArtifactManifest, save_artifact
from fusion_integrations.protocols import EmbedderIdentity

EMBEDDER = EmbedderIdentity(name="hash-v1", engine="hash", precision="fp32", dimensions=8, max_tokens=0)

SaveRouter = Callable[..., ArtifactManifest]


@pytest.fixture
def save_router() -> SaveRouter:
    def save(folder: Path, **changes: object) -> ArtifactManifest:
        fields: dict[str, object] = {
            "kind": "router",
            "files": {"head.bin": b"weights " * 40, "vocabulary.jsonl": b'{"word": "a"}\n'},
            "card": "# A router\n",
            "candidates": [
                {"id": "small:direct", "model": "small"},
                {"id": "large:direct", "model": "large"},
            ],
            "embedder": EMBEDDER,
            "query_text_version": 1,
            "arguments": {"head": "knn", "n_neighbors": 5},
            "log_fingerprint": "0123456789abcdef",
            "metrics": {"reward": 0.5, "per_task": {"maths": None}},
            "details": {"default_candidate": "small:direct"},
            "created_at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        }
        return save_artifact(folder, **{**fields, **changes})  # type: ignore[arg-type]  # a table of keywords

    return save
