"""Multiple choice about everyday life: what things are for, what happens next, what does not belong."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fusion_integrations.demo.tasks.family import Draw, Family, Filled, Template, load_data

__all__ = ["COMMONSENSE"]

_LETTERS = "ABCD"


def _choice(draw: Draw, slots: dict[str, object], right: str, wrong: Sequence[str]) -> Filled:
    """Put the options in random order; the answer is the letter of the right one."""
    options = draw.sample([right, *wrong], 1 + len(wrong))
    lines = [f"{letter}) {option}" for letter, option in zip(_LETTERS, options, strict=False)]
    return {**slots, "options": "\n".join(lines)}, _LETTERS[options.index(right)]


def _from_pairs(topic: str, *, n_options: int) -> Callable[[Draw], Filled]:
    """Fill `{clue}` from pairs of clue and answer; the other pairs' answers are the wrong options."""

    def fill(draw: Draw) -> Filled:
        (clue, right), *others = draw.sample(load_data("commonsense")[draw.split][topic], n_options)
        return _choice(draw, {"clue": clue}, right, [answer for _, answer in others])

    return fill


def _from_rows(topic: str, *, n_options: int) -> Callable[[Draw], Filled]:
    """Fill `{clue}` from rows of clue, right answer and three wrong ones."""

    def fill(draw: Draw) -> Filled:
        clue, right, *wrong = draw.pick(load_data("commonsense")[draw.split][topic])
        return _choice(draw, {"clue": clue}, right, draw.sample(wrong, n_options - 1))

    return fill


def _odd_one_out(draw: Draw) -> Filled:
    *alike, odd = draw.pick(load_data("commonsense")[draw.split]["oddone"])
    return _choice(draw, {}, odd, alike)


def _template(name: str, text: str, fill: Callable[[Draw], Filled]) -> Template:
    return Template(name=f"commonsense/{name}", text=text, metric="choice_match", fill=fill)


COMMONSENSE = Family(
    name="commonsense",
    train_templates=(
        _template(
            "tool",
            "What would you use to {clue}?\n{options}\nAnswer with the letter.",
            _from_pairs("tool", n_options=3),
        ),
        _template(
            "place",
            "Where do people usually go to {clue}?\n{options}\nReply with one letter.",
            _from_pairs("place", n_options=4),
        ),
        _template(
            "cause",
            "What most likely happens when {clue}?\n{options}\nAnswer with the letter.",
            _from_pairs("cause", n_options=4),
        ),
        _template(
            "category",
            "Which of these is {clue}?\n{options}\nAnswer with the letter.",
            _from_rows("category", n_options=3),
        ),
        _template(
            "opposite",
            'Choose the opposite of "{clue}".\n{options}\nAnswer with the letter only.',
            _from_pairs("opposite", n_options=4),
        ),
        _template(
            "situation",
            "Somebody {clue}. What is the most sensible thing to do?\n{options}\nAnswer with the letter.",
            _from_pairs("situation", n_options=3),
        ),
        _template(
            "comparison",
            "Which one {clue}?\n{options}\nWrite the letter of the right option.",
            _from_rows("size", n_options=4),
        ),
    ),
    test_templates=(
        _template(
            "job",
            "A person whose work it is that he or she {clue} is called a\n{options}\nGive the letter.",
            _from_pairs("job", n_options=4),
        ),
        _template(
            "wear",
            "Pick what people wear on or over {clue}.\n{options}\nYour answer should be one letter.",
            _from_pairs("wear", n_options=3),
        ),
        _template(
            "odd_one_out",
            "One option does not belong with the others. Find it and answer with its letter.\n{options}",
            _odd_one_out,
        ),
        _template(
            "before",
            "Which of these normally happens before people {clue}? Answer with the letter.\n{options}",
            _from_rows("first", n_options=3),
        ),
        _template(
            "material",
            "Select the thing that {clue} is made of or from.\n{options}\nState the letter only.",
            _from_pairs("material", n_options=4),
        ),
    ),
)
