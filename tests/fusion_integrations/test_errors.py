import builtins
import inspect
import pickle
import re

import pytest

from fusion_integrations import errors
from fusion_integrations.errors import FusionError, UnknownCandidateError

CLASSES = {
    name: item
    for name, item in vars(errors).items()
    if inspect.isclass(item) and item.__module__ == errors.__name__
}


def tree():
    """What the module's docstring says: class name → the built-in it also is."""
    lines = re.findall(r"[├└]── (\w+) \((\w+)\)", errors.__doc__)
    return dict(lines)


def test_the_docstring_lists_every_error_and_no_other():
    assert set(tree()) | {"FusionError"} == set(CLASSES)


def test_all_lists_every_error():
    assert set(errors.__all__) == set(CLASSES)


@pytest.mark.parametrize(("name", "built_in"), sorted(tree().items()))
def test_every_error_is_a_fusion_error_and_the_built_in_that_fits(name, built_in):
    assert CLASSES[name].__bases__ == (FusionError, getattr(builtins, built_in))


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_error_says_what_it_was_told_and_survives_another_process(name):
    error = CLASSES[name]("Query 'x' is blank.")
    assert str(error) == "Query 'x' is blank."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301  # how worker pools pass errors on
    assert CLASSES[name].__doc__


def test_unknown_candidate_without_a_message_is_empty():
    assert str(UnknownCandidateError()) == ""
