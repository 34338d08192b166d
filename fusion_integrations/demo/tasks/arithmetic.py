"""Arithmetic from one-digit sums to three-digit products.

No calculation of the test split occurs in the training split, whatever its wording.
"""

from __future__ import annotations

from collections.abc import Callable

from fusion_integrations.demo.tasks.family import Draw, Family, Filled, Template

__all__ = ["ARITHMETIC"]

_Range = tuple[int, int]


def _calculation(operator: str, a_range: _Range, b_range: _Range) -> Callable[[Draw], Filled]:
    """Fill `{a}` and `{b}`; in a difference or a division a is the larger, and divisions come out even."""

    def fill(draw: Draw) -> Filled:
        while True:
            a, b = draw.integer(*a_range), draw.integer(*b_range)
            if operator == "-":
                a, b = max(a, b), min(a, b)
            if draw.owns(operator, min(a, b), max(a, b)):
                break
        if operator == "/":
            return {"a": a * b, "b": b}, a
        return {"a": a, "b": b}, {"+": a + b, "-": a - b, "*": a * b}[operator]

    return fill


def _three_terms(result: Callable[[int, int, int], int], *ranges: _Range) -> Callable[[Draw], Filled]:
    """Fill `{a}`, `{b}` and `{c}`."""

    def fill(draw: Draw) -> Filled:
        while True:
            a, b, c = (draw.integer(*bounds) for bounds in ranges)
            if draw.owns(a, b, c):
                return {"a": a, "b": b, "c": c}, result(a, b, c)

    return fill


def _template(name: str, text: str, fill: Callable[[Draw], Filled]) -> Template:
    return Template(name=f"arithmetic/{name}", text=text, metric="numeric_match", fill=fill)


_ONE_DIGIT, _TWO_DIGITS, _THREE_DIGITS = (1, 9), (10, 99), (100, 999)

ARITHMETIC = Family(
    name="arithmetic",
    train_templates=(
        _template("sum_one_digit", "What is {a} + {b}?", _calculation("+", _ONE_DIGIT, _ONE_DIGIT)),
        _template(
            "sum_two_digits",
            "Add {a} and {b}. Give the number only.",
            _calculation("+", _TWO_DIGITS, _TWO_DIGITS),
        ),
        _template("difference_small", "What is {a} - {b}?", _calculation("-", (5, 20), (1, 9))),
        _template(
            "difference_two_digits", "Calculate {a} minus {b}.", _calculation("-", _TWO_DIGITS, _TWO_DIGITS)
        ),
        _template("product_one_digit", "What is {a} times {b}?", _calculation("*", (2, 9), (2, 9))),
        _template(
            "product_large",
            "Work out {a} x {b}. Give the number only.",
            _calculation("*", _THREE_DIGITS, (11, 49)),
        ),
        _template("division", "Divide {a} by {b}. What do you get?", _calculation("/", (2, 12), (2, 9))),
        _template(
            "sum_then_product",
            "Compute ({a} + {b}) * {c}. Answer with the final number.",
            _three_terms(lambda a, b, c: (a + b) * c, (2, 20), (2, 20), (2, 9)),
        ),
    ),
    test_templates=(
        _template("plus_one_digit", "How much is {a} plus {b}?", _calculation("+", _ONE_DIGIT, _ONE_DIGIT)),
        _template(
            "sum_equation",
            "Fill in the result: {a} + {b} = ?",
            _calculation("+", _TWO_DIGITS, _TWO_DIGITS),
        ),
        _template(
            "take_away",
            "If you take {b} away from {a}, what number is left?",
            _calculation("-", (5, 60), (1, 9)),
        ),
        _template(
            "product_equation",
            "{a} * {b} = ? Answer with the number only.",
            _calculation("*", (2, 9), (2, 9)),
        ),
        _template(
            "product_named", "Find the product of {a} and {b}.", _calculation("*", _THREE_DIGITS, (11, 49))
        ),
        _template("quotient", "How many times does {b} go into {a}?", _calculation("/", (2, 12), (2, 9))),
        _template(
            "product_then_sum",
            "Start with {a}, multiply it by {b}, then add {c}. Which number do you reach?",
            _three_terms(lambda a, b, c: a * b + c, (2, 12), (2, 9), (2, 30)),
        ),
    ),
)
