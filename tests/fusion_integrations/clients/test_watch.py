from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fusion_integrations.clients._watch import cut_at_stop, settled_text

_TEXT = st.text(alphabet="ab\n \ufffdé", max_size=4)
_STOPS = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=3), max_size=3)


def test_cut_at_stop_when_several_match_takes_the_first():
    assert cut_at_stop(" one, two. three ", (".", ",")) == ("one", True)
    assert cut_at_stop(" one ", ("x",)) == ("one", False)


def test_settled_text_when_a_stop_may_have_begun_holds_it_back():
    assert settled_text("Paris\nQ", ("\nQ:",)) == "Paris"
    assert settled_text("Paris\nIt", ("\nQ:",)) == "Paris\nIt"
    assert settled_text("caf\ufffd", ()) == "caf"
    assert settled_text("Paris ", ()) == "Paris"


@given(tokens=st.lists(_TEXT, max_size=12), stops=_STOPS)
def test_settled_text_when_the_answer_goes_on_stays_a_prefix(tokens, stops):
    texts = ["".join(tokens[:n]) for n in range(len(tokens) + 1)]
    end = next((n for n, text in enumerate(texts) if cut_at_stop(text, stops)[1]), len(tokens))
    final, _ = cut_at_stop(texts[end], stops)
    pieces = [settled_text(text, stops) for text in texts[: end + 1]]
    assert all(final.startswith(piece) for piece in pieces)
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(pieces))
