"""Facts a reader of an encyclopedia knows, from the best known to the obscure.

Each fact belongs to one split, so a right test answer cannot have been seen in training.
"""

from __future__ import annotations

from collections.abc import Callable

from fusion_integrations.demo.tasks.family import Draw, Family, Filled, Template, load_data

__all__ = ["FACTS"]


def _template(name: str, text: str, topic: str, metric: str = "cover_match") -> Template:
    """Make a template over a topic's pairs of `{thing}` and answer."""

    def fill(draw: Draw) -> Filled:
        thing, answer = draw.pick(load_data("facts")[draw.split][topic])
        return {"thing": thing}, answer

    return Template(name=f"facts/{name}", text=text, metric=metric, fill=fill, topic=f"facts/{topic}")


def _reversed(topic: str) -> Callable[[Draw], Filled]:
    """Ask for the thing, given the answer's first accepted form."""

    def fill(draw: Draw) -> Filled:
        thing, answer = draw.pick(load_data("facts")[draw.split][topic])
        return {"answer": answer.split("|")[0]}, thing

    return fill


FACTS = Family(
    name="facts",
    train_templates=(
        _template("capital_plain", "What is the capital of {thing}?", "capitals"),
        _template(
            "capital_short", "Name the capital city of {thing}. Answer with the city only.", "capitals"
        ),
        Template(
            name="facts/country_of_capital",
            text="{answer} is the capital of which country?",
            metric="cover_match",
            fill=_reversed("capitals"),
            topic="facts/capitals",
        ),
        _template("continent", "On which continent is {thing}?", "continents"),
        _template("element", "Which chemical element has the symbol {thing}?", "elements"),
        _template("author", 'Who wrote "{thing}"?', "authors"),
        _template("count", "How many {thing}? Give the number only.", "counts", "numeric_match"),
        _template("young_animal", "What is a young {thing} called? Answer with one word.", "animals"),
        _template("currency", "What is the currency of {thing}?", "currencies"),
    ),
    test_templates=(
        _template("capital_question", "Which city is the capital of {thing}?", "capitals"),
        _template("capital_sentence", "Complete the sentence: The capital of {thing} is", "capitals"),
        Template(
            name="facts/capital_reverse_sentence",
            text="Tell me the country whose capital city is {answer}.",
            metric="cover_match",
            fill=_reversed("capitals"),
            topic="facts/capitals",
        ),
        _template(
            "continent_of_country", "{thing} is a country. In which continent does it lie?", "continents"
        ),
        _template(
            "element_short", "In chemistry, what does the symbol {thing} stand for? One word.", "elements"
        ),
        _template("book", "Name the author of the book or play {thing}.", "authors"),
        _template("number", "Exactly how many {thing}?", "counts", "numeric_match"),
        _template("colour", "What colour is {thing}? Answer with one word.", "colours"),
    ),
)
