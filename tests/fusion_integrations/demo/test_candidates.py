from __future__ import annotations

import pytest

from fusion_integrations.demo.candidates import DEMO_CANDIDATES, DEMO_OPTIONS, DEMO_PRICES
from fusion_integrations.demo.models import DEMO_CLIENTS, demo_client, few_shot_examples
from fusion_integrations.demo.tasks import generate_tasks
from fusion_integrations.errors import CandidatesFileError


def test_demo_candidates_when_listed_have_clients_options_and_nominal_prices():
    assert [candidate.id for candidate in DEMO_CANDIDATES] == list(DEMO_OPTIONS)
    for candidate in DEMO_CANDIDATES:
        assert candidate.model in DEMO_CLIENTS
        assert candidate.revision
        assert candidate.description
        assert DEMO_PRICES.prices[candidate.price_key].is_nominal


def test_few_shot_examples_when_read_are_short_and_no_demo_query():
    examples, version = few_shot_examples()
    assert version == 1
    assert len(examples) == 6
    assert examples[1] == ("What is the largest ocean on Earth?", "Pacific Ocean")
    tasks = generate_tasks()
    queries = {query.text.casefold() for query in (*tasks.train, *tasks.test)}
    assert not queries & {question.casefold() for question, _ in examples}
    assert all(0 < len(answer) < 20 for _, answer in examples)


@pytest.mark.parametrize(
    ("model", "settings"),
    [("gpt-9", {}), ("smollm2-135m", {"threads": 2}), ("gemma-3-270m", {"n_threads": "2"})],
)
def test_demo_client_when_model_or_setting_is_unknown_raises(tmp_path, model, settings):
    with pytest.raises(CandidatesFileError, match="'demo' cannot make model"):
        demo_client(model, settings, tmp_path)
