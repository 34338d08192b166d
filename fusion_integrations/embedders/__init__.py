"""Turn texts into unit vectors; what routers and template search measure similarity with.

One class an engine. Importing this package imports none of the engines: each is loaded when an embedder of
its kind is made.
"""

from fusion_integrations.embedders.caching import CachingEmbedder
from fusion_integrations.embedders.hash_embedder import HashEmbedder
from fusion_integrations.embedders.loading import EMBEDDER_NAMES, check_identity, load_embedder
from fusion_integrations.embedders.micro_batching import MicroBatchingEmbedder
from fusion_integrations.embedders.minilm_onnx import OnnxMiniLMEmbedder
from fusion_integrations.embedders.minilm_torch import SentenceTransformerEmbedder
from fusion_integrations.embedders.wordllama_static import WordLlamaEmbedder

__all__ = [
    "EMBEDDER_NAMES",
    "CachingEmbedder",
    "HashEmbedder",
    "MicroBatchingEmbedder",
    "OnnxMiniLMEmbedder",
    "SentenceTransformerEmbedder",
    "WordLlamaEmbedder",
    "check_identity",
    "load_embedder",
]
