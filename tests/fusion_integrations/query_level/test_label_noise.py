import pytest

from fusion_integrations.query_level.label_noise import LabelNoise, measure_label_noise
from fusion_integrations.query_level.labels import LabelBlend
from fusion_integrations.types import ABANDONED


def repeated(scores, *, n=20, **columns):
    """n queries, each answered as often as there are scores."""
    return [
        {"q": f"query {i}", "c": "a", "performance": score, **columns} for i in range(n) for score in scores
    ]


def test_noise_worked_by_hand(logs):
    # Pairs (0, 1) have variance 1/2, pairs (1, 1) none: pooled 1/4. Of
    # 80 answers 60 are 1, so the total variance is 80 / 79 * 3/16.
    rows = [*repeated((0.0, 1.0)), *({**row, "c": "b"} for row in repeated((1.0, 1.0)))]
    noise = measure_label_noise(logs(*rows), "performance")
    assert noise.n_repeated == 40
    assert noise.within == pytest.approx(0.25)
    assert noise.total == pytest.approx(80 / 79 * 3 / 16)
    assert noise.ceiling == 0.0  # here even less than chance would be explained


def test_noise_weighs_pairs_by_their_degrees_of_freedom(logs):
    rows = [*repeated((0.0, 1.0)), *({**row, "c": "b"} for row in repeated((0.5, 0.5, 0.5)))]
    # 20 pairs of 1 degree with variance 1/2, 20 of 2 degrees with none: (20 * 1/2) / 60.
    assert measure_label_noise(logs(*rows), "performance").within == pytest.approx(1 / 6)


def test_noise_when_answers_agree_is_none_and_all_can_be_explained(logs):
    rows = [*repeated((1.0, 1.0)), *({**row, "c": "b"} for row in repeated((0.0, 0.0)))]
    noise = measure_label_noise(logs(*rows), "performance")
    assert (noise.within, noise.ceiling) == (0.0, 1.0)
    assert measure_label_noise(logs(*repeated((1.0, 1.0))), "performance").ceiling == 1.0


def test_noise_when_few_queries_repeat_is_unknown(logs):
    assert measure_label_noise(logs(*repeated((0.0, 1.0), n=19)), "performance") is None
    assert measure_label_noise(logs(*repeated((0.0,))), "performance") is None


def test_answers_that_are_no_repeats_do_not_count(logs):
    once = repeated((1.0,))
    failed = repeated((0.0,), error="timeout", response=None)
    abandoned = repeated((0.0,), finish_reason=ABANDONED)
    unscored = repeated((None,))
    revised = repeated((0.0,), candidate_revision="new")
    assert measure_label_noise(logs(*once, *failed, *abandoned, *unscored, *revised), "performance") is None


def test_noise_of_a_blend_is_that_of_its_mean(logs):
    rows = repeated((0.0, 1.0))
    for number, row in enumerate(rows):
        row["judge_score"] = 1.0 - row["performance"]
        row["performance"] = row["performance"] if number >= 2 else None  # one query lacks a score
    blend = LabelBlend(weights={"performance": 0.5, "judge_score": 0.5})
    assert measure_label_noise(logs(*rows), blend) is None  # 19 left
    rows[0]["performance"], rows[1]["performance"] = 0.0, 1.0
    assert measure_label_noise(logs(*rows), blend).within == 0.0


def test_noise_as_json_holds_its_ceiling():
    noise = LabelNoise(n_repeated=20, within=0.1, total=0.4)
    assert noise.to_json() == {
        "n_repeated": 20,
        "within": 0.1,
        "total": 0.4,
        "ceiling": pytest.approx(0.75),
    }
