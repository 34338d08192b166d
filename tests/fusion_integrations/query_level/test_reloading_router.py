import logging
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from fusion_integrations.artifacts.manifest import MANIFEST_FILE
from fusion_integrations.errors import ArtifactFormatError, ArtifactNotFoundError, InvalidPolicyError
from fusion_integrations.pipeline import FusionPipeline
from fusion_integrations.query_level.reloading_router import ReloadingRouter
from fusion_integrations.query_level.run_budget import RunBudget

SUM = "What is 17 plus 4? Give the number only."


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "router"


def version(router, number):
    """Return the router with other metrics, so that its artifact has another digest."""
    return replace(router, metrics={**router.metrics, "version": number})


def test_router_when_the_folder_is_saved_over_follows_after_its_pause(trained_router, folder):
    clock = Clock()
    first = version(trained_router, 1).save_pretrained(folder)
    router = ReloadingRouter(folder, check_every_s=5.0, clock=clock)
    second = version(trained_router, 2).save_pretrained(folder)
    assert first.basis.artifact != second.basis.artifact
    clock.now += 4.9
    assert router.route(SUM).artifact == first.basis.artifact
    clock.now += 0.2
    assert router.route(SUM) == second.route(SUM)
    assert router.route_batch([SUM])[0].artifact == router.current.basis.artifact == second.basis.artifact
    assert router.predict([SUM]).performance.shape == (1, 3)
    assert router.candidates == second.candidates


def test_router_when_nothing_changed_keeps_the_very_same_model(trained_router, folder):
    trained_router.save_pretrained(folder)
    router = ReloadingRouter(folder, check_every_s=0.0)
    assert router.current is router.current
    assert router.reload()


def test_router_keeps_its_embedder_while_the_identity_stays(trained_router, folder):
    version(trained_router, 1).save_pretrained(folder)
    router = ReloadingRouter(folder, check_every_s=0.0)
    before = router.current
    version(trained_router, 2).save_pretrained(folder)
    assert router.current is not before
    assert router.current.embedder is before.embedder


@pytest.mark.parametrize("damage", ["manifest", "weights", "gone"])
def test_router_when_the_new_artifact_is_broken_keeps_the_old_one_and_says_so_once(
    trained_router, folder, damage, caplog
):
    first = version(trained_router, 1).save_pretrained(folder)
    router = ReloadingRouter(folder, check_every_s=0.0)
    version(trained_router, 2).save_pretrained(folder)
    manifest = folder / MANIFEST_FILE
    if damage == "manifest":
        manifest.write_text("{")
    elif damage == "weights":
        (weights,) = folder.rglob("*.safetensors")
        weights.write_bytes(weights.read_bytes()[:-1])
    else:
        manifest.unlink()

    with caplog.at_level(logging.ERROR):
        answers = {router.route(SUM).artifact for _ in range(5)}

    assert answers == {first.basis.artifact}
    assert router.last_error is not None
    assert not router.reload()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert f"Keeping router {first.basis.artifact[:16]}" in caplog.text

    shutil.rmtree(folder)
    third = version(trained_router, 3).save_pretrained(folder)
    assert router.route(SUM).artifact == third.basis.artifact
    assert router.last_error is None


def test_router_when_the_new_weights_do_not_predict_keeps_the_old_one(trained_router, folder):
    first = trained_router.save_pretrained(folder)
    router = ReloadingRouter(folder, check_every_s=0.0)
    head = trained_router.weights.members[0]
    linear = head.components["linear"]
    cut = replace(linear, weights=linear.weights[:-1])  # for features that no query has
    broken = replace(head, components={**head.components, "linear": cut})
    weights = replace(trained_router.weights, members=(broken,) * 2)
    replace(trained_router, weights=weights).save_pretrained(folder)
    assert router.route(SUM).artifact == first.basis.artifact
    assert isinstance(router.last_error, ValueError)


def test_router_when_there_is_none_at_the_start_refuses(folder):
    with pytest.raises(ArtifactNotFoundError):
        ReloadingRouter(folder)
    folder.mkdir()
    (folder / MANIFEST_FILE).write_text("{")
    with pytest.raises(ArtifactFormatError):
        ReloadingRouter(folder)
    with pytest.raises(InvalidPolicyError, match="check_every_s"):
        ReloadingRouter(folder, check_every_s=-1.0)


def test_router_when_a_writer_replaces_it_while_eight_threads_route_never_shows_a_half(
    trained_router, folder
):
    # Two versions whose candidates come in another order: a mixture would choose a wrong one.
    forth = trained_router
    digests = {version(forth, 0).save_pretrained(folder).basis.artifact}
    router = ReloadingRouter(folder, check_every_s=0.0)
    done = threading.Event()

    def route():
        seen = []
        while not done.is_set():
            decision = router.route_batch([SUM, "Write a line about rivers."])
            seen.append((decision[0].artifact, *(d.candidate.id for d in decision)))
            assert decision[0].artifact == decision[1].artifact
        return seen

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(route) for _ in range(8)]
        for number in range(1, 9):
            digests.add(version(forth, number).save_pretrained(folder).basis.artifact)
        done.set()
        seen = {row for future in futures for row in future.result()}

    assert {artifact for artifact, *_ in seen} <= digests
    assert {tuple(chosen) for _, *chosen in seen} == {("calculator", "writer")}
    assert router.reload()
    assert router.current.metrics["version"] == 8


def test_pipeline_and_budget_take_a_reloading_router(trained_router, folder):
    version(trained_router, 1).save_pretrained(folder)
    pipeline = FusionPipeline(ReloadingRouter(folder, check_every_s=0.0), budget=RunBudget(1.0))
    second = version(trained_router, 2).save_pretrained(folder)
    assert pipeline.plan(SUM).decision.artifact == second.basis.artifact
    assert [plan.decision.artifact for plan in pipeline.plan_batch([SUM, SUM])] == [
        second.basis.artifact,
        second.basis.artifact,
    ]
