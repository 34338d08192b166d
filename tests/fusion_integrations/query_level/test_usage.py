from dataclasses import replace

import numpy as np
import pytest

from fusion_integrations.query_level.router_dataset import RouterDataset
from fusion_integrations.query_level.usage import UsageModel, fit_usage

NAN = np.nan
FEATURES = np.tile(np.float32([[1.0, 0.0]]), (30, 1))
SETTINGS = {"kinds": np.zeros(30, dtype=np.intp), "n_embedding": 0, "n_threads": 1, "seed": 0}


def dataset_of(logs, *, input_tokens=lambda n: 2 * n + 3, output_tokens=10, cost_usd=0.5):
    texts = ["word " * (i % 15 + 1) + chr(97 + i % 26) + str(i) for i in range(30)]
    rows = [
        {
            "q": text,
            "c": c,
            "performance": 1.0,
            "input_tokens": None if c == "b" else int(input_tokens(len(text))),
            "output_tokens": None if c == "b" else output_tokens,
            "cost_usd": None if c == "b" else cost_usd,
        }
        for text in texts
        for c in "ab"
    ]
    return RouterDataset.from_logs(logs(*rows))


def test_prompt_tokens_follow_the_length_of_the_text(logs):
    usage = fit_usage(dataset_of(logs), FEATURES, **SETTINGS)
    predicted = usage.predict(["x" * 50, "x" * 500], FEATURES[:2])
    np.testing.assert_allclose(predicted.input_tokens[:, 0], [103, 1003], rtol=1e-4)


def test_prompt_tokens_count_system_and_tool_messages(logs):
    # A quarter of a token a character; a third of the prompts has 4000 characters of context, the rest 400.
    dataset = dataset_of(logs)
    context = np.where(np.arange(30) % 3 == 0, 4000, 400).astype(np.float32)
    lengths = np.array([len(text) for text in dataset.texts])
    tokens = np.repeat((0.25 * (lengths + context) + 7)[:, None], 2, axis=1).astype(np.float32)
    dataset = replace(dataset, context_characters=context, input_tokens=tokens)
    usage = UsageModel.from_tensors(dict(fit_usage(dataset, FEATURES, **SETTINGS).tensors()))
    asked = {"texts": ["x" * 100] * 3, "features": FEATURES[:3]}
    known = usage.predict(**asked, context_characters=np.float32([0, 4000, NAN])).input_tokens[:, 0]
    # In a prompt that is not laid out yet, the usual 400 are to come.
    np.testing.assert_allclose(known, [32, 1032, 132], rtol=1e-4)
    np.testing.assert_allclose(usage.predict(**asked).input_tokens[:, 0], [132] * 3, rtol=1e-4)


def test_usage_saved_before_context_was_counted_leaves_it_out(logs):
    tensors = dict(fit_usage(dataset_of(logs), FEATURES, **SETTINGS).tensors())
    del tensors["usual_context"]
    old = UsageModel.from_tensors(tensors)
    predicted = old.predict(["x" * 50], FEATURES[:1], context_characters=np.float32([9000]))
    np.testing.assert_allclose(predicted.input_tokens[:, 0], [103], rtol=1e-4)


def test_answer_tokens_and_cost_when_constant_are_that_constant(logs):
    usage = fit_usage(dataset_of(logs), FEATURES, **SETTINGS)
    predicted = usage.predict(["any"], FEATURES[:1])
    np.testing.assert_allclose(predicted.output_tokens[:, 0], [10], rtol=1e-5)
    np.testing.assert_allclose(predicted.cost_usd[:, 0], [0.5], rtol=1e-5)


def test_usage_when_never_logged_is_unknown_not_zero(logs):
    predicted = fit_usage(dataset_of(logs), FEATURES, **SETTINGS).predict(["any"], FEATURES[:1])
    for values in (predicted.input_tokens, predicted.output_tokens, predicted.cost_usd):
        assert np.isnan(values[:, 1]).all()
        assert np.isfinite(values[:, 0]).all()


def test_usage_when_logged_as_free_is_zero_not_unknown(logs):
    usage = fit_usage(dataset_of(logs, output_tokens=0, cost_usd=0.0), FEATURES, **SETTINGS)
    predicted = usage.predict(["any"], FEATURES[:1])
    assert (predicted.output_tokens[0, 0], predicted.cost_usd[0, 0]) == (0.0, 0.0)


@pytest.mark.parametrize("line", [lambda n: max(2 * n - 12, 0), lambda n: max(300 - 2 * n, 0)])
def test_prompt_tokens_when_the_line_falls_below_zero_are_zero(logs, line):
    # Negative tokens would make a call earn money, and the reward prefer it for that.
    usage = fit_usage(dataset_of(logs, input_tokens=line), FEATURES, **SETTINGS)
    predicted = usage.predict(["x", "x" * 5000], FEATURES[:2]).input_tokens[:, 0]
    assert predicted.min() == 0.0
    assert predicted.max() > 0.0


def test_prompt_tokens_when_all_texts_are_equally_long_are_their_mean(logs):
    rows = [{"q": f"{i:04}", "c": "a", "performance": 1.0, "input_tokens": 4 + i % 2} for i in range(30)]
    usage = fit_usage(RouterDataset.from_logs(logs(*rows)), FEATURES, **SETTINGS)
    np.testing.assert_allclose(usage.predict(["x" * 99], FEATURES[:1]).input_tokens, [[4.5]], rtol=1e-6)


def test_latency_where_logged_is_predicted_and_unknown_elsewhere(logs):
    rows = [
        {"q": f"word {i}", "c": c, "performance": 1.0, "latency_s": 1.5 if c == "a" else None}
        for i in range(30)
        for c in "ab"
    ]
    usage = fit_usage(RouterDataset.from_logs(logs(*rows)), FEATURES, **SETTINGS)
    restored = UsageModel.from_tensors(dict(usage.tensors()))
    latency = restored.predict(["any"], FEATURES[:1]).latency_s
    np.testing.assert_allclose(latency, [[1.5, NAN]], rtol=1e-5)
    assert usage.head.means.shape[1] == 4  # apart from it, as older releases expect


def test_latency_when_never_logged_is_not_stored(logs):
    usage = fit_usage(dataset_of(logs), FEATURES, **SETTINGS)
    assert usage.latency_s is None
    assert "latency_s" not in usage.tensors()
    assert usage.predict(["any"], FEATURES[:1]).latency_s is None


def test_usage_when_restored_from_its_tensors_is_equal(logs):
    usage = fit_usage(dataset_of(logs), FEATURES, **SETTINGS)
    restored = UsageModel.from_tensors(dict(usage.tensors()))
    before, after = (model.predict(["any text"], FEATURES[:1]) for model in (usage, restored))
    for name in ("input_tokens", "output_tokens", "cost_usd"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
