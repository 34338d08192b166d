"""`fusion inspect`: what an artifact says about itself, after checking that it is intact."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusion_integrations.cli.terminal import DebugOption, JsonOption, noise_text, plain_table, terminal

if TYPE_CHECKING:
    from rich.table import Table

    from fusion_integrations.artifacts import ArtifactManifest, LoadedArtifact

__all__ = ["inspect"]


def inspect(
    artifact: Annotated[Path, typer.Argument(help="Folder of a saved artifact.")],
    *,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show and verify a saved artifact.

    Every file is compared with its hash in the manifest; nothing of it is run.
    """
    with terminal(as_json=as_json, debug=debug) as place:
        from fusion_integrations.artifacts import load_artifact, read_manifest

        loaded = load_artifact(artifact, kind=read_manifest(artifact).kind, keep="paths")
        manifest = loaded.manifest
        sizes = {name: loaded.path(name).stat().st_size for name in manifest.files}
        particulars = _particulars(loaded)
        document = manifest.model_dump(mode="json") | {
            "digest": manifest.digest,
            "verified": True,
            "particulars": particulars,
        }
        place.show(
            document,
            "\n".join([*_summary(manifest), *(f"{name}: {value}" for name, value in particulars.items())]),
            *([_candidates_table(manifest)] if manifest.candidates else []),
            _files_table(manifest, sizes),
            "All files match their hashes. To load exactly this artifact and no other, pass\n"
            f"expected_digest='{manifest.digest}'",
        )


def _particulars(artifact: LoadedArtifact) -> dict[str, str | int]:
    """Return what only artifacts of its kind have, read from their data files."""
    if artifact.manifest.kind == "template_library":
        from fusion_integrations.thought_level.template_library import ThoughtTemplateLibrary

        library = ThoughtTemplateLibrary.from_pretrained(artifact.folder)
        return {"templates": len(library), "fingerprint": library.fingerprint}
    if artifact.manifest.kind == "student":
        from fusion_integrations.model_level.student_artifact import StudentAdapter

        adapter = StudentAdapter.from_artifact(artifact)
        return {
            "revision": adapter.revision,
            "base": adapter.base.name,
            "base weights": adapter.base.weights,
            "layers with an adapter": ", ".join(adapter.config.target_modules),
            "rank": adapter.config.r,
        }
    return {}


def _summary(manifest: ArtifactManifest) -> Iterator[str]:
    yield f"{manifest.kind}, format {manifest.format_version}"
    yield f"saved: {manifest.created_at.isoformat(timespec='seconds')} by release {manifest.library_version}"
    yield f"embedder: {manifest.embedder or 'none'}"
    yield f"fingerprint of its logs: {manifest.log_fingerprint or 'unknown'}"
    for title, values in (("argument", manifest.arguments), ("metric", manifest.metrics)):
        for name, value in values.items():
            yield f"{title} {name}: {json.dumps(value, ensure_ascii=False)}"
    noise = manifest.metrics.get("label_noise")
    if isinstance(noise, dict):
        yield noise_text(noise)


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
