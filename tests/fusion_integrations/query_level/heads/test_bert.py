"""The head that reads texts, on the real weights of all-MiniLM-L6-v2."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from fusion_integrations.embedders.hash_embedder import HashEmbedder
from fusion_integrations.embedders.minilm_layers import MiniLMLayers
from fusion_integrations.errors import ArtifactFormatError, InvalidPolicyError, MissingDependencyError
from fusion_integrations.query_level.heads import (
    BertHeadConfig,
    fit_ensemble,
    predict_unseen,
    restore_embedding,
    restore_head,
)
from fusion_integrations.query_level.heads.bert import fit_bert_members
from fusion_integrations.query_level.router_config import RouterTrainingArguments
from fusion_integrations.query_level.router_model import RouterModel
from fusion_integrations.query_level.router_trainer import RouterTrainer
from fusion_integrations.testing import head_inputs

real_model = pytest.mark.real_model
NAN = np.nan
FOLDS = np.arange(96) % 2
QUICK = BertHeadConfig(n_epochs=1, max_tokens=16, batch_size=8)
SUMS = ["What is {} plus {}?", "Add {} to {}.", "{} pears and {} figs: how many fruits?"]
PROSE = ["Write {} lines on river {}.", "Describe {} birds of forest {}.", "A story of {} kings, part {}."]


def two_kinds(n=96, *, hidden=0.0, seed=0):
    """Sums and prose, told by the texts only; candidate 0 answers sums, 1 prose, 2 half of either."""
    rng = np.random.default_rng(0)
    kind = np.repeat([0, 1], n // 2)[rng.permutation(n)]
    texts = [(SUMS, PROSE)[k][row % 3].format(row, row % 7) for row, k in enumerate(kind)]
    targets = np.stack([kind == 0, kind == 1, rng.random(n) < 0.5], axis=1).astype(np.float32)
    targets[np.random.default_rng(1).random(targets.shape) < hidden] = NAN
    features = rng.normal(size=(n, 5)).astype(
        np.float32
    )  # noise: three in place of an embedding, two surface
    return head_inputs(features, targets, texts=texts, n_embedding=3, seed=seed), kind


def predictions(ensemble, inputs):
    features = ensemble.embedding.replace_embedding(inputs.texts, inputs.features)
    return np.stack([member.predict(features) for member in ensemble.members])


@pytest.fixture(scope="module")
def trained():
    inputs, kind = two_kinds(hidden=0.3)
    return fit_ensemble(QUICK, inputs, FOLDS), inputs, kind


@real_model
def test_bert_learns_from_some_answers_who_answers_what(trained):
    ensemble, inputs, kind = trained
    predicted = predictions(ensemble, inputs)
    assert predicted.shape == (2, 96, 3)
    assert predicted.dtype == np.float32
    assert ((predicted[:, :, 0] > predicted[:, :, 1]) == (kind == 0)).mean() > 0.95
    assert not np.array_equal(predicted[0], predicted[1])


@real_model
def test_unseen_queries_are_predicted_by_what_did_not_see_their_fold():
    inputs, kind = two_kinds()
    predicted = predict_unseen(QUICK, inputs, FOLDS)
    assert ((predicted[:, 0] > predicted[:, 1]) == (kind == 0)).mean() > 0.95
    # Other answers in fold 0 change nothing of what is predicted for fold 0.
    lies = inputs.targets.copy()
    lies[FOLDS == 0] = 1 - lies[FOLDS == 0]
    other = predict_unseen(QUICK, replace(inputs, targets=lies), FOLDS)
    np.testing.assert_array_equal(other[FOLDS == 0], predicted[FOLDS == 0])
    assert not np.array_equal(other[FOLDS == 1], predicted[FOLDS == 1])


@real_model
def test_what_a_member_does_not_see_moves_its_output_layer_through_the_embedding_only():
    inputs, _ = two_kinds()
    frozen = replace(QUICK, learning_rate=1e-12)
    lies = inputs.targets.copy()
    lies[FOLDS == 0] = 1 - lies[FOLDS == 0]
    sees = FOLDS[:, None] != np.arange(2)
    _, truthful = fit_bert_members(frozen, inputs, sees)
    _, misled = fit_bert_members(frozen, replace(inputs, targets=lies), sees)
    np.testing.assert_allclose(misled[0].weights, truthful[0].weights, atol=1e-4)
    assert np.abs(misled[1].weights - truthful[1].weights).max() > 0.01


@real_model
def test_bert_when_the_seed_is_equal_is_bit_equal(trained):
    ensemble, inputs, _ = trained
    again = fit_ensemble(QUICK, inputs, FOLDS)
    np.testing.assert_array_equal(predictions(again, inputs), predictions(ensemble, inputs))


@real_model
def test_bert_when_restored_predicts_bit_equal_and_stores_one_embedding_of_16_bits(trained):
    ensemble, inputs, _ = trained
    stored = ensemble.embedding.tensors()
    layer = {name: tensor for name, tensor in stored.items() if name.startswith("layer.")}
    assert {tensor.dtype for tensor in layer.values()} == {np.dtype(np.float16)}
    assert sum(tensor.size for tensor in layer.values()) == 1_774_464  # one layer: 12 * 384^2 + 13 * 384
    restored = type(ensemble)(
        tuple(restore_head("bert", member.tensors()) for member in ensemble.members),
        restore_embedding("bert", {name: tensor.copy() for name, tensor in stored.items()}),
    )
    np.testing.assert_array_equal(predictions(restored, inputs), predictions(ensemble, inputs))


@real_model
def test_training_changed_the_top_layer_and_left_the_published_one(trained):
    ensemble, _, _ = trained
    name = "output.dense.weight"
    layers, fresh = ensemble.embedding.layers, MiniLMLayers(max_tokens=16)
    published = fresh.layer_weights(5)[name].numpy()
    assert np.abs(ensemble.embedding.top[0][name].numpy() - published).max() > 1e-4
    np.testing.assert_array_equal(layers.layer_weights(5)[name].numpy(), published)


@real_model
def test_candidate_with_few_answers_stays_near_the_mean_of_all():
    inputs, _ = two_kinds()
    inputs.targets[8:, 2], inputs.weights[8:, 2] = NAN, 0
    inputs.targets[:8, 2] = 1.0
    predicted = predictions(fit_ensemble(QUICK, inputs, FOLDS), inputs)
    # Four answers of 1 that a member sees, ten of the overall mean of about 0.5.
    np.testing.assert_allclose(predicted[:, :, 2], (4 + 10 * 0.52) / 14, atol=0.03)


@real_model
def test_prediction_of_no_query_is_empty(trained):
    ensemble, inputs, _ = trained
    assert predictions(ensemble, inputs.select(np.array([], dtype=np.intp))).shape == (2, 0, 3)


@real_model
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("published_sha256", lambda hash_: hash_[::-1].copy(), "other weights than the all-MiniLM-L6-v2"),
        ("layer.0.output.dense.bias", lambda bias: bias[:7], r"has the shape \(7,\) instead of \(384,\)"),
    ],
)
def test_restoring_when_it_does_not_fit_the_published_weights_refuses(trained, name, change, message):
    tensors = trained[0].embedding.tensors()
    tensors[name] = change(tensors[name])
    with pytest.raises(ArtifactFormatError, match=message):
        restore_embedding("bert", tensors)


@real_model
def test_restoring_when_an_array_of_the_embedding_is_missing_names_it(trained):
    tensors = trained[0].embedding.tensors()
    del tensors["layer.0.intermediate.dense.weight"]
    with pytest.raises(ArtifactFormatError, match=r"lacks the array 'layer\.0\.intermediate\.dense\.weight'"):
        restore_embedding("bert", tensors)


@real_model
@pytest.mark.slow
def test_router_of_bert_trains_routes_and_loads_bit_equal(tmp_path, logs, two_tasks):
    arguments = RouterTrainingArguments(head=QUICK, n_members=2, n_calibration_folds=2, n_threads=1)
    embedder = HashEmbedder(dimensions=16)
    router = RouterTrainer(arguments, embedder=embedder).train(logs(*two_tasks(40))).save_pretrained(tmp_path)
    loaded = RouterModel.from_pretrained(tmp_path)
    queries = ["How many are 3 apples plus 4 pears?", "Write a gentle story about rivers"]
    assert [decision.candidate.id for decision in loaded.route_batch(queries)] == ["a", "b"]
    np.testing.assert_array_equal(
        loaded.predict(queries).performance_members, router.predict(queries).performance_members
    )
    size = sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors"))
    assert size < 4_500_000  # two members, one embedding


def test_bert_without_torch_says_which_extra_has_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    inputs, _ = two_kinds()
    with pytest.raises(MissingDependencyError, match=r"fusion-integrations\[embed-torch\]"):
        fit_ensemble(QUICK, inputs, FOLDS)


def test_config_when_there_are_fewer_layers_than_to_train_refuses():
    with pytest.raises(InvalidPolicyError, match="n_tuned_layers must be at most 6, got 7"):
        BertHeadConfig(n_tuned_layers=7)
