"""Varied texts for every embedder."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def varied_texts() -> list[str]:
    """50 texts: short and long, several scripts, code, formulas, signs."""
    special = [
        "a",
        "?",
        "What is 17 * 24?",
        "Wie hoch ist die Zugspitze, gemessen über Normalnull?",
        "Où est la bibliothèque ? Ça dépend…",
        "東京の人口は何人ですか",
        "Сколько будет дважды два?",
        "كم عدد الكواكب في المجموعة الشمسية؟",
        "कितने ग्रह हैं?",
        "naïve café \N{COMBINING ACUTE ACCENT} e\N{COMBINING ACUTE ACCENT}",
        "\N{FAMILY} \N{THUMBS UP SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4} ok",
        "\N{ZERO WIDTH SPACE}hidden\N{ZERO WIDTH SPACE}",
        "tabs\tand\nnew\r\nlines",
        "def f(x: int) -> int:\n    return x ** 2  # square",
        "SELECT name FROM users WHERE id = 7; -- comment",
        r"Solve $\int_0^1 x^2 \, dx$ and simplify.",
        "https://example.org/path?query=1&other=two#fragment",
        "Antidisestablishmentarianism " * 8,
        "x" * 150,
        "The quick brown fox jumps over the lazy dog. " * 10,
        "Long beyond the limit of the model. " * 100,
        "1234567890 " * 60,
        "[CLS] special [SEP] tokens [MASK] as text [PAD]",
        "UPPER lower MiXeD",
        "   padded with blanks   ",
    ]
    plain = [f"Question {n}: how many of the {n * 7} apples are left after {n} days?" for n in range(25)]
    return special + plain
