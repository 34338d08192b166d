"""A router that follows its artifact folder, so that a retrained one serves without a restart."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fusion_integrations.artifacts import read_manifest
from fusion_integrations.artifacts.manifest import MANIFEST_FILE
from fusion_integrations.errors import InvalidPolicyError
from fusion_integrations.protocols import Embedder
from fusion_integrations.query_level.decision import RouteDecision
from fusion_integrations.query_level.exploration import RandomSource
from fusion_integrations.query_level.policy import PERFORMANCE_FIRST, RoutingPolicy
from fusion_integrations.query_level.prediction import Prediction
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.types import Candidate, PriceTable, Query

__all__ = ["ReloadingRouter"]

logger = logging.getLogger(__name__)

_Stamp = tuple[int, int, int]


class ReloadingRouter:
    """The router of a folder, loaded anew when the folder is saved over. Safe to share between threads.

    A new artifact is loaded and tried completely before one assignment puts it in place; the thread that
    finds it loads it, the others go on with the old one meanwhile. Each call is answered by one artifact,
    whose digest its decisions carry. If the new one is broken, the old one stays, the error is logged once
    and kept in `last_error`, and the next look tries again.

    New candidates come with a new artifact: an application that has models for some only should say so in its
    policy, `RoutingPolicy(allowed=...)`.

    Args:
        folder: Where the router is saved.
        embedder: The embedder it was trained with. Default: the built-in one of that identity, reused as long
            as the identity stays.
        check_every_s: Seconds between two looks at the folder, each of which asks the file system for one
            file's time.
        clock: Gives seconds; replaced in tests.

    Raises:
        ArtifactNotFoundError: If there is no artifact.
        ArtifactFormatError: If it is damaged, of another kind or of a newer release.
        EmbedderMismatchError: If the embedder differs from the one it was trained with.
        InvalidPolicyError: If `check_every_s` is negative.

    Example:
        >>> import tempfile
        >>> from fusion_integrations.testing import tiny_router
        >>> folder = tempfile.mkdtemp() + "/router"
        >>> first = tiny_router().save_pretrained(folder)
        >>> ReloadingRouter(folder).route("What is 17 plus 24?").candidate.id
        'calculator'
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        embedder: Embedder | None = None,
        check_every_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not check_every_s >= 0:
            raise InvalidPolicyError(f"check_every_s must be at least 0, got {check_every_s}.")
        self.folder = Path(folder)
        self.check_every_s = check_every_s
        self._embedder, self._clock = embedder, clock
        self._lock = threading.Lock()
        self._last_error: Exception | None = None
        self._router = RouterModel.from_pretrained(self.folder, embedder=embedder)
        # Taken for changed at the first look: a save between loading and this line is not missed.
        self._stamp: _Stamp | None = None
        self._next_check = self._clock() + check_every_s

    @property
    def current(self) -> RouterModel:
        """The newest intact router, after a look at the folder if one is due."""
        if self._clock() >= self._next_check and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._router

    @property
    def last_error(self) -> Exception | None:
        """Why the newest artifact is not in use; None if it is."""
        return self._last_error

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The k candidates of the current router."""
        return self.current.candidates

    def reload(self) -> bool:
        """Look at the folder now.

        Returns:
            Whether the newest artifact is in use; otherwise see `last_error`.
        """
        with self._lock:
            self._look()
            return self._last_error is None

    def predict(self, queries: Sequence[str | Query]) -> Prediction:
        """Predict as the current router; see `RouterModel.predict`."""
        return self.current.predict(queries)

    def route(
        self,
        query: str | Query,
        *,
        policy: RoutingPolicy = PERFORMANCE_FIRST,
        prices: PriceTable | None = None,
        random: RandomSource | None = None,
    ) -> RouteDecision:
        """Choose as the current router; see `RouterModel.route`."""
        return self.current.route(query, policy=policy, prices=prices, random=random)

    def route_batch(
        self,
        queries: Sequence[str | Query],
        *,
        policy: RoutingPolicy = PERFORMANCE_FIRST,
        prices: PriceTable | None = None,
        random: RandomSource | None = None,
    ) -> list[RouteDecision]:
        """Choose for several queries as one and the same router; see `RouterModel.route_batch`."""
        return self.current.route_batch(queries, policy=policy, prices=prices, random=random)

    def _look(self) -> None:
        """Put the folder's artifact in place if it is another one; held under the lock."""
        self._next_check = self._clock() + self.check_every_s
        try:
            stamp = self._stamp_now()
            if stamp == self._stamp:
                return
            self._take_newest()
            self._stamp, self._last_error = stamp, None
        except Exception as error:
            # Whatever is wrong with the new artifact, the old one has to go on answering; without its stamp
            # the next look tries again, as a copy may not be complete yet.
            if repr(error) != repr(self._last_error):
                logger.error("Keeping router %s: %s", self._router.basis.artifact[:16], error)
            self._last_error, self._stamp = error, None

    def _stamp_now(self) -> _Stamp:
        found = (self.folder / MANIFEST_FILE).stat()
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _take_newest(self) -> None:
        manifest = read_manifest(self.folder)
        old = self._router
        if manifest.digest == old.basis.artifact:
            return
        is_same = manifest.embedder == old.embedder.identity
        new = RouterModel.from_pretrained(self.folder, embedder=old.embedder if is_same else self._embedder)
        new.predict(["Is this router whole?"])
        self._router = new
        logger.info("Router %s replaced %s", new.basis.artifact[:16], old.basis.artifact[:16])
