"""Opinions, from plain praise and blame to negation and irony."""

from __future__ import annotations

from fusion_integrations.demo.tasks.family import Draw, Family, Filled, Template, load_data

__all__ = ["SENTIMENT"]


def _template(name: str, text: str, *, positive: str = "positive", negative: str = "negative") -> Template:
    """Make a template around `{review}`, with the two answers it offers."""

    def fill(draw: Draw) -> Filled:
        data = load_data("sentiment")[draw.split]
        polarity = draw.pick(("positive", "negative"))
        review = draw.pick(data[polarity]).format(thing=draw.pick(data["things"]))
        return {"review": review}, positive if polarity == "positive" else negative

    return Template(name=f"sentiment/{name}", text=text, metric="label_match", fill=fill)


SENTIMENT = Family(
    name="sentiment",
    train_templates=(
        _template("classify", 'Is this review positive or negative? "{review}"'),
        _template("label", "Review: {review}\nSentiment (positive or negative):"),
        _template(
            "one_word", 'What is the sentiment of "{review}"? Answer with one word, positive or negative.'
        ),
        _template(
            "likes", '"{review}" Did the writer like it? Answer yes or no.', positive="yes", negative="no"
        ),
        _template(
            "true_false",
            'True or false: the person who wrote "{review}" is satisfied.',
            positive="true",
            negative="false",
        ),
        _template(
            "mood", 'A customer writes: "{review}" Decide whether this opinion is negative or positive.'
        ),
    ),
    test_templates=(
        _template("feeling", 'Does "{review}" express a positive or a negative feeling?'),
        _template("tag", "Tag this comment as positive or negative.\n{review}\nTag:"),
        _template(
            "recommend",
            "Someone said: {review} Would they recommend it? Reply with yes or no.",
            positive="yes",
            negative="no",
        ),
        _template(
            "unhappy",
            'Somebody posts "{review}" Are they unhappy with it? Say yes or no.',
            positive="no",
            negative="yes",
        ),
        _template("pick", "Negative or positive? Pick the label that fits the text: {review}"),
    ),
)
