"""Word problems of one to three steps with whole-number answers."""

from __future__ import annotations

from collections.abc import Callable

from fusion_integrations.demo.tasks.family import Draw, Family, Filled, Template, load_data

__all__ = ["WORD_PROBLEMS"]

_THINGS = {
    "train": ("apples", "marbles", "stickers", "pencils", "shells", "coins", "cards", "buttons"),
    "test": ("cookies", "stamps", "balloons", "beads", "oranges", "crayons", "toy cars", "stones"),
}


def _template(name: str, text: str, numbers: Callable[[Draw], tuple[dict[str, int], int]]) -> Template:
    """Make a template; its text may also use `{name}`, `{other}` and `{things}`."""

    def fill(draw: Draw) -> Filled:
        values, answer = numbers(draw)
        name, other = draw.sample(load_data("people")[draw.split], 2)
        return {**values, "name": name, "other": other, "things": draw.pick(_THINGS[draw.split])}, answer

    return Template(name=f"word_problems/{name}", text=text, metric="numeric_match", fill=fill)


def _two(
    result: Callable[[int, int], int], a_range: tuple[int, int], b_range: tuple[int, int]
) -> Callable[[Draw], tuple[dict[str, int], int]]:
    def numbers(draw: Draw) -> tuple[dict[str, int], int]:
        a, b = draw.integer(*a_range), draw.integer(*b_range)
        return {"a": a, "b": b}, result(a, b)

    return numbers


def _three(
    result: Callable[[int, int, int], int], *ranges: tuple[int, int]
) -> Callable[[Draw], tuple[dict[str, int], int]]:
    def numbers(draw: Draw) -> tuple[dict[str, int], int]:
        a, b, c = (draw.integer(*bounds) for bounds in ranges)
        return {"a": a, "b": b, "c": c}, result(a, b, c)

    return numbers


def _equal_shares(draw: Draw) -> tuple[dict[str, int], int]:
    # Different numbers: repeating the question must not give the answer.
    share, n_friends = draw.sample(range(2, 10), 2)
    return {"a": share * n_friends, "b": n_friends}, share


def _percentage_off(draw: Draw) -> tuple[dict[str, int], int]:
    price, percent = 20 * draw.integer(1, 10), draw.pick((10, 20, 25, 50))
    return {"a": price, "b": percent}, price - price * percent // 100


def _average(draw: Draw) -> tuple[dict[str, int], int]:
    mean, spread = draw.integer(10, 40), draw.integer(1, 8)
    return {"a": mean - spread, "b": mean, "c": mean + spread}, mean


WORD_PROBLEMS = Family(
    name="word_problems",
    train_templates=(
        _template(
            "gets_more",
            "{name} has {a} {things}. {other} gives {name} {b} more. How many {things} does {name} have now?",
            _two(lambda a, b: a + b, (2, 12), (2, 9)),
        ),
        _template(
            "gives_away",
            "{name} had {a} {things} and gave {b} of them to {other}. How many {things} are left?",
            _two(lambda a, b: a - b, (10, 20), (2, 9)),
        ),
        _template(
            "boxes",
            "There are {a} boxes with {b} {things} in each box. How many {things} are there in total? "
            "Give the number only.",
            _two(lambda a, b: a * b, (2, 9), (2, 12)),
        ),
        _template(
            "shares",
            "{name} shares {a} {things} equally among {b} friends. How many {things} does each friend get?",
            _equal_shares,
        ),
        _template(
            "change",
            "A ticket costs {a} dollars. {name} buys {b} tickets and pays with {c} dollars. "
            "How many dollars of change does {name} get back?",
            _three(lambda a, b, c: c - a * b, (3, 12), (2, 5), (61, 100)),
        ),
        _template(
            "sells_in_parts",
            "{name} bakes {a} trays with {b} buns each and sells {c} buns. How many buns remain?",
            _three(lambda a, b, c: a * b - c, (3, 9), (6, 12), (4, 17)),
        ),
        _template(
            "older",
            "{name} is {a} years old. {other} is {b} years older than {name}. How old is {other}?",
            _two(lambda a, b: a + b, (5, 40), (2, 15)),
        ),
        _template(
            "distance",
            "A bus drives {a} kilometres every hour. How many kilometres does it drive in {b} hours?",
            _two(lambda a, b: a * b, (20, 90), (2, 8)),
        ),
        _template(
            "discount",
            "A coat costs {a} dollars. It is now {b} percent cheaper. What is the new price in dollars?",
            _percentage_off,
        ),
    ),
    test_templates=(
        _template(
            "finds_some",
            "This morning {name} owned {a} {things}. Later {name} found {b} others in the garden. "
            "What is the total number of {things} {name} owns?",
            _two(lambda a, b: a + b, (2, 12), (2, 9)),
        ),
        _template(
            "loses_some",
            "A bag holds {a} {things}. Because of a hole, {b} fall out on the way home. "
            "How many stay in the bag? Answer with a number.",
            _two(lambda a, b: a - b, (10, 25), (2, 9)),
        ),
        _template(
            "rows",
            "In a classroom the chairs stand in {a} rows of {b}. How many chairs is that altogether?",
            _two(lambda a, b: a * b, (2, 9), (3, 12)),
        ),
        _template(
            "saves_weekly",
            "{name} saves {a} dollars a week for {b} weeks and then spends {c} dollars on a gift "
            "for {other}. How much money is left?",
            _three(lambda a, b, c: a * b - c, (5, 15), (4, 9), (3, 19)),
        ),
        _template(
            "average",
            "{name} read {a} pages on Monday, {b} on Tuesday and {c} on Wednesday. "
            "On average, how many pages did {name} read per day?",
            _average,
        ),
        _template(
            "twice_as_many",
            "{name} has {a} {things}. {other} has twice as many. How many {things} do they have together?",
            _two(lambda a, _: 3 * a, (2, 30), (0, 0)),
        ),
    ),
)
