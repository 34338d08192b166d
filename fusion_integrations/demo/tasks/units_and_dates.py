"""Units, clock times, weekdays and months."""

from __future__ import annotations

from collections.abc import Callable

from fusion_integrations.demo.tasks.family import Draw, Family, Filled, Template

__all__ = ["UNITS_AND_DATES"]

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
# Days of the months of a year that is not a leap year; the questions say so for February.
_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

# Larger unit, smaller unit, how many of the smaller make one of the larger.
_CONVERSIONS = {
    "train": (
        ("kilometres", "metres", 1000),
        ("metres", "centimetres", 100),
        ("kilograms", "grams", 1000),
        ("feet", "inches", 12),
        ("centuries", "years", 100),
    ),
    "test": (
        ("litres", "millilitres", 1000),
        ("centimetres", "millimetres", 10),
        ("tonnes", "kilograms", 1000),
        ("yards", "feet", 3),
        ("decades", "years", 10),
    ),
}


def _convert(draw: Draw) -> Filled:
    large, small, factor = draw.pick(_CONVERSIONS[draw.split])
    amount = draw.integer(2, 20)
    return {"large": large, "small": small, "amount": amount, "product": amount * factor}, amount * factor


def _convert_back(draw: Draw) -> Filled:
    slots, product = _convert(draw)
    return {**slots, "product": product}, slots["amount"]


def _multiple(factor: int, low: int, high: int) -> Callable[[Draw], Filled]:
    """Fill `{amount}`; the answer is that many times the factor."""

    def fill(draw: Draw) -> Filled:
        amount = draw.integer(low, high)
        return {"amount": amount}, amount * factor

    return fill


def _hours_and_minutes(draw: Draw) -> Filled:
    hours, minutes = draw.integer(1, 5), 5 * draw.integer(1, 11)
    return {"hours": hours, "minutes": minutes}, 60 * hours + minutes


def _weekday(low: int, high: int) -> Callable[[Draw], Filled]:
    """Fill `{day}` and `{shift}`; a negative shift looks back."""

    def fill(draw: Draw) -> Filled:
        i, shift = draw.integer(0, 6), draw.integer(low, high)
        return {"day": _DAYS[i], "shift": abs(shift)}, _DAYS[(i + shift) % 7]

    return fill


def _month(shift: int) -> Callable[[Draw], Filled]:
    def fill(draw: Draw) -> Filled:
        i = draw.integer(0, 11)
        return {"month": _MONTHS[i]}, _MONTHS[(i + shift) % 12]

    return fill


def _month_number(draw: Draw) -> Filled:
    i = draw.integer(0, 11)
    return {"month": _MONTHS[i]}, i + 1


def _month_days(draw: Draw) -> Filled:
    i = draw.integer(0, 11)
    return {"month": _MONTHS[i]}, _MONTH_DAYS[i]


def _clock(draw: Draw) -> Filled:
    """Fill `{start}` and `{minutes}`; times stay between 1:00 and 12:59."""
    hour, minute, later = draw.integer(1, 10), 5 * draw.integer(0, 11), 5 * draw.integer(2, 17)
    end = 60 * hour + minute + later
    return {"start": f"{hour}:{minute:02d}", "minutes": later}, f"{end // 60}:{end % 60:02d}"


def _years(draw: Draw) -> Filled:
    start, length = draw.integer(1801, 1989), draw.integer(3, 97)
    return {"start": start, "end": start + length, "length": length}, length


def _year_later(draw: Draw) -> Filled:
    slots, _ = _years(draw)
    return slots, slots["end"]


def _template(name: str, text: str, metric: str, fill: Callable[[Draw], Filled]) -> Template:
    return Template(name=f"units_and_dates/{name}", text=text, metric=metric, fill=fill)


UNITS_AND_DATES = Family(
    name="units_and_dates",
    train_templates=(
        _template("convert", "Convert {amount} {large} to {small}.", "numeric_match", _convert),
        _template(
            "hours_to_minutes",
            "How many minutes are in {amount} hours? Give the number only.",
            "numeric_match",
            _multiple(60, 1, 12),
        ),
        _template("weeks_to_days", "How many days are {amount} weeks?", "numeric_match", _multiple(7, 1, 12)),
        _template(
            "day_after",
            "Today is {day}. What day of the week will it be in {shift} days?",
            "label_match",
            _weekday(1, 5),
        ),
        _template(
            "next_day", "Which day of the week comes after {day}? One word.", "label_match", _weekday(1, 1)
        ),
        _template(
            "next_month",
            "Which month comes right after {month}? Answer with one word.",
            "exact_match",
            _month(1),
        ),
        _template(
            "month_number", "{month} is month number what of the year?", "numeric_match", _month_number
        ),
        _template(
            "clock",
            "It is {start} now. What time will it be in {minutes} minutes? Answer as hour:minutes.",
            "cover_match",
            _clock,
        ),
        _template("age", "A bridge was built in {start}. How old was it in {end}?", "numeric_match", _years),
        _template(
            "duration",
            "A film lasts {hours} hours and {minutes} minutes. How many minutes is that in total?",
            "numeric_match",
            _hours_and_minutes,
        ),
    ),
    test_templates=(
        _template(
            "how_many_units",
            "{amount} {large} equal how many {small}? Give the number only.",
            "numeric_match",
            _convert,
        ),
        _template("convert_back", "Express {product} {small} in {large}.", "numeric_match", _convert_back),
        _template("dozens", "How many eggs are {amount} dozen eggs?", "numeric_match", _multiple(12, 1, 12)),
        _template(
            "yesterday", "If today is {day}, what was the day before called?", "label_match", _weekday(-1, -1)
        ),
        _template(
            "days_ago",
            "What weekday was it {shift} days before a {day}? Name the day only.",
            "label_match",
            _weekday(-6, -2),
        ),
        _template(
            "month_before", "Name the month that comes just before {month}.", "exact_match", _month(-1)
        ),
        _template(
            "days_in_month",
            "In a year that is not a leap year, how many days does {month} have?",
            "numeric_match",
            _month_days,
        ),
        _template(
            "train_arrives",
            "A train leaves at {start} and travels for {minutes} minutes. At what time does it arrive? "
            "Write it like 7:05.",
            "cover_match",
            _clock,
        ),
        _template(
            "year_later",
            "The company was founded in {start}. In which year did it celebrate {length} years?",
            "numeric_match",
            _year_later,
        ),
    ),
)
