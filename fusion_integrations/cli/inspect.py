"""`fusion inspect`: what an artifact says about itself, after checking that it is intact."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusion_integrations.cli.terminal import DebugOption, JsonOption, plain_table, terminal

if TYPE_CHECKING:
    from rich.table import Table

    from fusion_integrations.artifacts import ArtifactManifest

__all__ = ["inspect"]


def inspect(
    artifact: Annotated[Path, typer.Argument(help="Folder of a saved artifact.")],
    *,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show and verify a saved artifact.

    Every file is compared with its hash in the manifest; nothing of it is loaded or run.
    """
    with terminal(as_json=as_json, debug=debug) as place:
        from fusion_integrations.artifacts import load_artifact, read_manifest

        loaded = load_artifact(artifact, kind=read_manifest(artifact).kind, keep="paths")
        manifest = loaded.manifest
        sizes = {name: loaded.path(name).stat().st_size for name in manifest.files}
        document = manifest.model_dump(mode="json") | {"digest": manifest.digest, "verified": True}
        place.show(
            document,
            "\n".join(_summary(manifest)),
            _candidates_table(manifest),
            _files_table(manifest, sizes),
            "All files match their hashes. To load exactly this artifact and no other, pass\n"
            f"expected_digest='{manifest.digest}'",
        )


def _summary(manifest: ArtifactManifest) -> Iterator[str]:
    yield f"{manifest.kind}, format {manifest.format_version}"
    yield f"saved: {manifest.created_at.isoformat(timespec='seconds')} by release {manifest.library_version}"
    yield f"embedder: {manifest.embedder or 'none'}"
    yield f"fingerprint of its logs: {manifest.log_fingerprint or 'unknown'}"
    for title, values in (("argument", manifest.arguments), ("metric", manifest.metrics)):
        for name, value in values.items():
            yield f"{title} {name}: {json.dumps(value, ensure_ascii=False)}"


def _candidates_table(manifest: ArtifactManifest) -> Table:
    table = plain_table("Candidates", text_columns=("id", "kind", "model", "prompt mode", "revision"))
    for candidate in manifest.candidates:
        fields = ("id", "kind", "model", "prompt_mode", "revision")
        table.add_row(*(str(candidate.get(name, "")) for name in fields))
    return table


def _files_table(manifest: ArtifactManifest, sizes: dict[str, int]) -> Table:
    table = plain_table("Files", text_columns=("name", "SHA-256"), number_columns=("bytes",))
    for name, sha256 in manifest.files.items():
        table.add_row(name, sha256, f"{sizes[name]:,}")
    return table
