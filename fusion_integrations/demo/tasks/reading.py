"""A short passage, then a question that the passage answers.

Passages are written for this project; names, places and numbers vary, so the answer has to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fusion_integrations.demo.tasks.family import Draw, Family, Filled, Split, Template, load_data

__all__ = ["READING"]

_VALUES = {
    "train": {
        "town": ("Arlow", "Brenfield", "Castell", "Dunmere", "Eastham", "Fallow Bay"),
        "colour": ("red", "green", "white", "brown"),
        "animal": ("fox", "goat", "turtle", "horse", "rabbit"),
        "food": ("plum cake", "cheese pies", "ginger biscuits", "potato pancakes"),
    },
    "test": {
        "town": ("Garlin", "Hollowmere", "Ivysham", "Kestrel Point", "Lowen", "Marrick"),
        "colour": ("blue", "yellow", "grey", "black"),
        "animal": ("heron", "badger", "deer", "cat", "swan"),
        "food": ("apple tart", "walnut bread", "lentil stew", "honey rolls"),
    },
}

# Before or after the passage, with or without a hint how to answer: questions come in all shapes.
_LAYOUTS = {
    "train": (
        "{passage}\n\nQuestion: {question}",
        "Read the text and answer the question in a few words.\n\n{passage}\n\n{question}",
    ),
    "test": (
        "Text: {passage}\n\nAccording to the text: {question}",
        "Answer this from the passage below. {question}\n\nPassage: {passage}",
    ),
}


def _fill(reference: str) -> Callable[[Draw], Filled]:
    def fill(draw: Draw) -> Filled:
        name, other = draw.sample(load_data("people")[draw.split], 2)
        slots: Mapping[str, object] = {
            "name": name,
            "other": other,
            "n": draw.integer(11, 99),
            **{slot: draw.pick(values) for slot, values in _VALUES[draw.split].items()},
        }
        return slots, reference.format(**slots)

    return fill


def _templates(split: Split) -> tuple[Template, ...]:
    """Make one template a question; the layouts take turns."""
    layouts = _LAYOUTS[split]
    templates: list[Template] = []
    for entry in load_data("passages")[split]:
        for i, (question, reference, metric) in enumerate(entry["questions"]):
            layout = layouts[(len(templates) // len(entry["questions"]) + i) % len(layouts)]
            templates.append(
                Template(
                    name=f"reading/{entry['name']}/{i + 1}",
                    text=layout.format(passage=entry["passage"], question=question),
                    metric=metric,
                    fill=_fill(reference),
                    topic=f"reading/{entry['name']}",
                )
            )
    return tuple(templates)


READING = Family(name="reading", train_templates=_templates("train"), test_templates=_templates("test"))
