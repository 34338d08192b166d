"""Save and load what the trainers make: folders of data files under one checked manifest, never code."""

from fusion_integrations.artifacts.loading import LoadedArtifact, load_artifact, read_manifest
from fusion_integrations.artifacts.manifest import FORMAT_VERSION, ArtifactKind, ArtifactManifest
from fusion_integrations.artifacts.saving import save_artifact

__all__ = [
    "FORMAT_VERSION",
    "ArtifactKind",
    "ArtifactManifest",
    "LoadedArtifact",
    "load_artifact",
    "read_manifest",
    "save_artifact",
]
