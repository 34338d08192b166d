"""What `math_match` does when results cannot be compared; docs/metric_conformance.json has those that can."""

from __future__ import annotations

import pytest

from fusion_integrations.errors import LogSchemaError, MetricFailedError, MissingDependencyError
from fusion_integrations.scoring import _math_process, score
from fusion_integrations.scoring.math_match import math_result


@pytest.fixture
def math_verify_as(tmp_path, monkeypatch):
    """Put another package in place of math-verify, in a worker of its own."""

    def write(source):
        (tmp_path / "math_verify").mkdir()
        (tmp_path / "math_verify" / "__init__.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        _math_process._WORKER.close()

    yield write
    _math_process._WORKER.close()


def symbolic(answer=r"\boxed{\frac{x}{2}}", reference="x/2"):
    return score(answer, metric="math_match", reference=reference)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{\frac{\sqrt{2}}{2}}", r"\frac{\sqrt{2}}{2}"),
        (r"\boxed{a}, no: \fbox{b}", "b"),
        (r"\boxed{never closed", r"\boxed{never closed"),
        ("The answer is $x = 3$, as $y$ shows.", "x = 3"),
        ("We get $2x = 6$, so $x = 3$.", "x = 3"),
        (r"So \(x\) is \[x = 3\]", "x = 3"),
        ("**Answer:** 1,234,567 dollars.", "1234567 dollars"),
        ("1,234 and 5,678", "1234 and 5678"),
        ("(1,234)", "(1,234)"),
        (r"\boxed{-\$1,000}", "-1000"),
        ("x" * 500, None),
        (" ", None),
        (r"\boxed{ }", None),
    ],
)
def test_math_result_when_a_solution_commits_to_something_finds_it(text, expected):
    assert math_result(text) == expected


def test_math_match_when_the_reference_cannot_be_read_is_refused():
    with pytest.raises(LogSchemaError, match=r"cannot read the reference '\\frac\{'"):
        symbolic(reference=r"\frac{")


@pytest.mark.slow
def test_math_match_when_the_reference_cannot_be_evaluated_is_refused():
    with pytest.raises(LogSchemaError, match="cannot read the reference"):
        symbolic("5 apples", reference="9^{9^{9^9}}")


@pytest.mark.slow
def test_math_match_after_a_worker_was_killed_by_its_work_goes_on():
    assert symbolic("$9^{9^{9^9}}$") == 0.0
    assert symbolic() == 1.0


def test_math_match_when_the_package_is_missing_names_the_extra(math_verify_as):
    math_verify_as("raise ModuleNotFoundError('no', name='math_verify')")
    assert symbolic("7", "7.0") == 1.0  # plain numbers need no package
    with pytest.raises(MissingDependencyError, match=r"fusion-integrations\[math\]"):
        symbolic()


def test_math_match_when_the_worker_crashes_fails_by_name(math_verify_as):
    math_verify_as("import os\nLatexExtractionConfig = object\nparse = lambda *a, **k: os._exit(3)")
    with pytest.raises(MetricFailedError, match="exit code 3"):
        symbolic()


def test_math_match_when_a_result_is_python_code_does_not_run_it(tmp_path):
    target = tmp_path / "made"
    answer = f"\\boxed{{__import__('os').system('touch {target}')}}"
    assert symbolic(answer) == 0.0
    assert not target.exists()
