"""Routers trained once for the whole session, because training is the slow part."""

from __future__ import annotations

import pytest

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.query_level.heads import XGBoostHeadConfig
from fusion_integrations.query_level.router_config import RouterTrainingArguments
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.query_level.router_trainer import RouterTrainer
from fusion_integrations.testing import tiny_candidates, tiny_logs, tiny_router


@pytest.fixture(scope="session")
def trained_router() -> RouterModel:
    return tiny_router()


@pytest.fixture(scope="session")
def xgboost_router() -> RouterModel:
    arguments = RouterTrainingArguments(
        head=XGBoostHeadConfig(n_rounds=10), n_members=2, n_calibration_folds=2, n_threads=1
    )
    trainer = RouterTrainer(arguments, embedder=HashEmbedder(dimensions=16))
    return trainer.train(tiny_logs(), candidates=tiny_candidates())


@pytest.fixture(params=["cluster", "xgboost"], scope="session")
def router_of_each_head(request: pytest.FixtureRequest) -> RouterModel:
    name = {"cluster": "trained_router", "xgboost": "xgboost_router"}[request.param]
    router: RouterModel = request.getfixturevalue(name)
    return router
