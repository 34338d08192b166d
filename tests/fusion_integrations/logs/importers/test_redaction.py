import json

import pytest

from fusion_integrations.logs.importers import ColumnMapping, import_logs
from fusion_integrations.logs.importers._redaction import Redactor

COLUMNS = ColumnMapping(query="q", model="m", response="r", error="e", reference="ref", session_id="s")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("use sk-proj-abcdefghij0123456789 now", "use [secret] now"),
        ("sk-ant-api03-abcdefghij0123456789", "[secret]"),
        ("Authorization: Bearer abcdef0123456789.xyz", "Authorization: Bearer [secret]"),
        ("token hf_abcdefghijklmnopqrstuvwx", "token [secret]"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "[secret]"),
        ("key AKIAIOSFODNN7EXAMPLE here", "key [secret] here"),
        ("AIzaSyA-abcdefghijklmnopqrstuvwxyz01234", "[secret]"),
        ("xoxb-123456789012-abcdefghij", "[secret]"),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSMeKKF2QT4", "[secret]"),
        ("OPENAI_API_KEY=abcdefgh12345678", "OPENAI_API_KEY=[secret]"),
        ('{"api_key": "abcdefgh12345678"}', '{"api_key": "[secret]"}'),
        ("postgresql://ann:hunter2@host/db", "postgresql://[secret]@host/db"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----.", "[secret]."),
    ],
)
def test_text_when_it_holds_a_secret_then_it_is_taken_out(text, expected):
    assert Redactor().text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a risk-averse desk-based task-oriented-question-about-answers",
        "What is a bearer token? A basic understanding is enough.",
        'api_key = os.environ["OPENAI_API_KEY"]',
        "How do I reset my password: click on the link.",
        "https://example.org/a:b@c",
        "Mail ann.lee@example.org, 2024-05-03, 10.0.0.1",
    ],
)
def test_text_when_it_only_speaks_of_secrets_then_it_is_left_alone(text):
    assert Redactor().text(text) == text


def test_import_when_texts_hold_secrets_then_neither_store_nor_quarantine_does(tmp_path, store, samples):
    key = "sk-proj-abcdefghij0123456789"
    rows = [
        {"q": f"Use {key}", "m": "a", "r": f"Not {key}!", "ref": key, "s": "ann"},
        {"q": f"Use {key}", "m": "a", "e": f"401: {key}", "s": f"session {key}"},
        {"q": f"Use {key}", "m": None, "api_key": "short", "nested": [{"Authorization": "x"}]},
    ]

    report = import_logs("table", samples.lines(tmp_path / "log.jsonl", rows), store, columns=COLUMNS)

    assert (report.n_added, report.n_quarantined) == (2, 1)
    stored = "".join(record.model_dump_json() for record in store.records())
    assert key not in stored
    assert "Use [secret]" in stored
    assert "401: [secret]" in stored
    (aside,) = report.quarantine.read_text().splitlines()
    values = json.loads(aside)["values"]
    assert values == {
        "q": "Use [secret]",
        "m": None,
        "api_key": "[secret]",
        "nested": [{"Authorization": "[secret]"}],
    }


def test_import_when_secrets_were_taken_out_then_importing_again_adds_nothing(tmp_path, store, samples):
    rows = [{"q": "Use sk-proj-abcdefghij0123456789", "m": "a", "r": "x", "e": None, "ref": None, "s": None}]
    path = samples.lines(tmp_path / "log.jsonl", rows)
    import_logs("table", path, store, columns=COLUMNS)

    report = import_logs("table", path, store, columns=COLUMNS)

    assert (report.n_added, report.n_known, report.n_quarantined) == (0, 1, 0)


def test_import_when_asked_then_personal_data_is_taken_out(tmp_path, store, samples):
    question = "Mail ann.lee@example.org or call +1 212 555 0199 about 2024-05-03, 42 times"
    rows = [{"q": question, "m": "a", "r": "Done, ann.lee@example.org.", "s": "ann.lee@example.org"}]
    path = samples.lines(tmp_path / "log.jsonl", rows)

    import_logs(
        "table",
        path,
        store,
        columns=ColumnMapping(query="q", model="m", response="r", session_id="s"),
        redact="secrets_and_pii",
    )

    (record,) = store.records()
    assert record.messages[0].content == "Mail [EMAIL_1] or call [PHONE_1] about 2024-05-03, 42 times"
    assert record.response == "Done, [EMAIL_1]."
    assert "ann.lee" not in record.model_dump_json()
    assert len(record.session_id) == 16  # a hash still groups
