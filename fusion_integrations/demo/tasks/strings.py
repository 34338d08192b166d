"""Letters and words: counting, first and last, order, spelling backwards."""

from __future__ import annotations

from collections.abc import Callable

from fusion_integrations.demo.tasks.family import Draw, Family, Filled, Template, load_data

__all__ = ["STRINGS"]


def _word(answer: Callable[[str], object], *, max_length: int = 12) -> Callable[[Draw], Filled]:
    """Fill `{word}`."""

    def fill(draw: Draw) -> Filled:
        word = draw.pick([word for word in load_data("words")[draw.split] if len(word) <= max_length])
        return {"word": word}, answer(word)

    return fill


def _words(answer: Callable[[list[str]], object], *, sizes: tuple[int, int]) -> Callable[[Draw], Filled]:
    """Fill `{words}` and `{phrase}`, the words with and without commas."""

    def fill(draw: Draw) -> Filled:
        words = draw.sample(load_data("words")[draw.split], draw.integer(*sizes))
        return {"words": ", ".join(words), "phrase": " ".join(words)}, answer(words)

    return fill


def _letter_count(draw: Draw) -> Filled:
    word = draw.pick(load_data("words")[draw.split])
    letter = draw.pick(sorted(set(word)))
    return {"word": word, "letter": letter}, word.count(letter)


def _contains(draw: Draw) -> Filled:
    word, letter = draw.pick(load_data("words")[draw.split]), draw.pick("aeiorst")
    return {"word": word, "letter": letter}, "yes" if letter in word else "no"


def _next_letter(draw: Draw) -> Filled:
    letter = draw.pick("BCDEFGHJKLMNOPQRSTUVWXY")
    return {"letter": letter}, chr(ord(letter) + 1).lower()


def _position(draw: Draw) -> Filled:
    words = draw.sample(load_data("words")[draw.split], 5)
    place = draw.integer(1, 3)
    return {"phrase": " ".join(words), "place": ("second", "third", "fourth")[place - 1]}, words[place]


def _longest(draw: Draw) -> Filled:
    """Fill `{words}`, one of which is longer than all others."""
    while True:
        words = draw.sample(load_data("words")[draw.split], 3)
        *_, second, longest = sorted(words, key=len)
        if len(longest) > len(second):
            return {"words": ", ".join(words)}, longest


def _template(name: str, text: str, metric: str, fill: Callable[[Draw], Filled]) -> Template:
    return Template(name=f"strings/{name}", text=text, metric=metric, fill=fill)


STRINGS = Family(
    name="strings",
    train_templates=(
        _template(
            "length",
            'How many letters does the word "{word}" have?',
            "numeric_match",
            _word(len),
        ),
        _template(
            "first_letter",
            'What is the first letter of the word "{word}"? Answer with the letter only.',
            "exact_match",
            _word(lambda word: word[0]),
        ),
        _template(
            "last_letter", 'Which letter does "{word}" end with?', "exact_match", _word(lambda word: word[-1])
        ),
        _template(
            "backwards",
            'Spell the word "{word}" backwards.',
            "cover_match",
            _word(lambda word: word[::-1], max_length=6),
        ),
        _template(
            "occurrences",
            'How many times does the letter "{letter}" appear in "{word}"? Give the number only.',
            "numeric_match",
            _letter_count,
        ),
        _template(
            "alphabetical",
            "Which of these words comes first in alphabetical order: {words}? Answer with one word.",
            "exact_match",
            _words(min, sizes=(2, 3)),
        ),
        _template(
            "number_of_words",
            'How many words are in this line: "{phrase}"?',
            "numeric_match",
            _words(len, sizes=(2, 7)),
        ),
        _template(
            "contains",
            'Does the word "{word}" contain the letter "{letter}"? Answer yes or no.',
            "label_match",
            _contains,
        ),
        _template(
            "first_word",
            'Write the first word of this line: "{phrase}"',
            "exact_match",
            _words(lambda words: words[0], sizes=(3, 6)),
        ),
    ),
    test_templates=(
        _template(
            "count_letters",
            'Count the letters in "{word}". Give the number only.',
            "numeric_match",
            _word(len),
        ),
        _template(
            "starts_with",
            'With which letter does "{word}" start? One letter.',
            "exact_match",
            _word(lambda word: word[0]),
        ),
        _template(
            "last_word",
            'The line is "{phrase}". What is its last word?',
            "exact_match",
            _words(lambda words: words[-1], sizes=(3, 6)),
        ),
        _template(
            "reverse",
            'Write "{word}" with its letters in reverse order. Answer with the reversed word.',
            "cover_match",
            _word(lambda word: word[::-1], max_length=6),
        ),
        _template(
            "longest",
            "Find the longest word among {words}. Answer with that word only.",
            "exact_match",
            _longest,
        ),
        _template(
            "next_letter",
            "Which letter of the alphabet comes right after {letter}?",
            "exact_match",
            _next_letter,
        ),
        _template(
            "nth_word",
            'Read the words "{phrase}". Which word is the {place} one?',
            "exact_match",
            _position,
        ),
        _template(
            "list_length",
            "Count the items of this list: {words}. How many are there?",
            "numeric_match",
            _words(len, sizes=(2, 8)),
        ),
    ),
)
