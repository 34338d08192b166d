import json
import time
from datetime import UTC, datetime

import pytest

from fusion_integrations.logs.importers import ColumnMapping, import_logs
from fusion_integrations.logs.importers._redaction import Redactor, may_be_redacted_from
from fusion_integrations.logs.importers._secrets import without_secrets
from fusion_integrations.logs.schema import LogRecord
from fusion_integrations.types import Message

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
        ("ya29.a0AfH6SMBabcdefghijklmnopqrstuvw now", "[secret] now"),
        ("SG.abcdefghijklmnopqrstuv.abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG", "[secret]"),
        ("pypi-AgEIcHlwaS5vcmcCJGFiY2RlZmdoLWlqa2wtbW5vcC1xcnN0", "[secret]"),
        (f"dop_v1_{'0123456789abcdef' * 4}", "[secret]"),
        ("shpat_0123456789abcdef0123456789abcdef", "[secret]"),
        (
            "https://hooks.slack.com/services/T00000000/B00000000/abcdefghijklmnopqrstuvwx",
            "https://hooks.slack.com/services/[secret]",
        ),
        ("123456789:AAabcdefghijklmnopqrstuvwxyz0123456", "[secret]"),
        (
            "https://api.telegram.org/bot123456789:AAabcdefghijklmnopqrstuvwxyz0123456/getMe",
            "https://api.telegram.org/bot[secret]/getMe",
        ),
    ],
)
def test_text_when_it_holds_a_secret_then_it_is_taken_out(text, expected):
    assert Redactor().text(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'{"log": "{\"api_key\": \"abcd1234efgh\"}"}', r'{"log": "{\"api_key\": \"[secret]\"}"}'),
        (r'"{\\\"api_key\\\": \\\"abcd1234efgh\\\"}"', r'"{\\\"api_key\\\": \\\"[secret]\\\"}"'),
        ("api_key: `abcd1234efgh`", "api_key: `[secret]`"),
        ("'api_key' => 'abcd1234efgh'", "'api_key' => '[secret]'"),
        ('os.environ["API_KEY"] = "abcd1234efgh"', 'os.environ["API_KEY"] = "[secret]"'),
        ('api_key: str = "abcd1234efgh"', 'api_key: str = "[secret]"'),
        ('"clientSecret":"abcd1234"', '"clientSecret":"[secret]"'),
        ("X-Api-Key: abcd1234", "X-Api-Key: [secret]"),
        ("my API key is: abcd1234efgh", "my API key is: [secret]"),
        ("AccountKey=Eby8vdM02xNOcqFlqUwJ/K1SZFPTOtr==;Suffix=x", "AccountKey=[secret];Suffix=x"),
        ("https://x.org/?token=abcd1234abcd&page=2", "https://x.org/?token=[secret]&page=2"),
        ("Authorization: Bearer abcd1234abcd", "Authorization: Bearer [secret]"),
        ("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer [secret]"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic [secret]"),
        ("Authorization: Token 9944b09199c62bcf9418ad846dd0e4bbdfc6ee4b", "Authorization: Token [secret]"),
        ("-H 'Authorization: key=AAAAabcd1234'", "-H 'Authorization: key=[secret]'"),
        ("a bearer abcdefghijklmnopqrstuvwx", "a bearer [secret]"),
        ("Bearer aBcDeFgHiJ_kLmNoPqRs", "Bearer [secret]"),
        ("Token 9944b09199c62bcf9418ad846dd0e4bbdfc6ee4b", "Token [secret]"),
    ],
)
def test_text_when_a_name_says_that_it_is_a_key_then_it_is_taken_out(text, expected):
    assert Redactor().text(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("password=Sup3rSecret!", "password=[secret]"),
        ("the password is: Sup3rSecret!", "the password is: [secret]"),
        ("**Password:** hunter2", "**Password:** [secret]"),
        ("password=p@ssword&user=ann", "password=[secret]&user=ann"),
        ("password='correct-horse!'", "password='[secret]'"),
        ('"password": "letmein"', '"password": "[secret]"'),
        (r"{\"password\": \"letmein\"}", r"{\"password\": \"[secret]\"}"),
        ("DB_PASSWORD=letmein", "DB_PASSWORD=[secret]"),
        ("Server=x;User Id=sa;Password=letmein;", "Server=x;User Id=sa;Password=[secret];"),
        ("SMTP_PASS=hunter2", "SMTP_PASS=[secret]"),
        ("redis://:hunter2@host:6379/0", "redis://[secret]@host:6379/0"),
        ("amqp://ann:p@ss:word@host", "amqp://[secret]@host"),
    ],
)
def test_text_when_it_tells_a_password_then_it_is_taken_out(text, expected):
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
        "the password is required",
        "Enter your password: now!",
        "a bearer of bad news",
        "Bearer RFC6750-compliant tokens",
        "Basic input/output-operations",
        "The secret: the recipe of 1950. API key: required.",
        "password_changed_at: 2024-05-03T10:11:12, api_key_created_at: 2024-05-03T10:11:12",
        "password: https://example.org/reset?x=1",
        "password = input()",
        "password = hashlib.sha256(text).hexdigest()",
        "password=config.db1.password",
        'password = request.form["password1"]',
        "def connect(user: str, password: str = None, token: str | None = None):",
        '"password": {"type": "string", "minLength": 8}',
        "'password' => 'required|min:8'",
        "password: ${DB_PASSWORD2}, password: ********",
        'f"postgresql://{user}:{password}@{host}/db"',
        "[docs](http://example.org:80), mail me@example.org",
        'api_key=os.environ["KEY"]',
        'api_key = os.getenv("KEY2")',
        "token = next(tokens)",
        'tokenizer="bert-base-uncased-2018"',
        '{"token": "Hello", "prompt_tokens": 12345678901234}',
        "PWD=/home/user1/project",
        "gpt-4o-mini",
        "accounts/fireworks/models/llama-v3p1-70b-instruct",
    ],
)
def test_text_when_it_only_speaks_of_secrets_then_it_is_left_alone(text):
    assert Redactor().text(text) == text


@pytest.mark.parametrize(
    "text",
    ["password=Sup3rSecret!", '"api_key": "abcd1234efgh"', "redis://:hunter2@host", "Bearer abcd1234abcd"],
)
def test_text_when_redacted_again_then_stays(text):
    once = Redactor().text(text)

    assert Redactor().text(once) == once != text


HOSTILE = [
    *("api_key", "token", "secret", "password", "PASSWORD", "_pass", "authorization: bearer "),
    *("Bearer ", "Basic ", "://", "://a:", "-eyJ", "-SG.", "123456:AA", "-----BEGIN "),
]


@pytest.mark.parametrize("start", HOSTILE)
@pytest.mark.parametrize("rest", ["=", "=aaaaaaa1", "a" * 20, r"\\\\\": "])
def test_text_when_it_is_hostile_then_time_grows_no_faster_than_its_length(start, rest):
    # Begun again at each of these and searched to the end, it would take many times as long.
    text = (start + rest) * (300_000 // len(start + rest)) + "("

    begin = time.process_time()  # of this process: a busy machine is not a slow pattern
    without_secrets(text)

    assert time.process_time() - begin < 2.5


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"x-api-key": "short", "pwd": "x"}, {"x-api-key": "[secret]", "pwd": "[secret]"}),
        ({"token": "abcd1234abcd"}, {"token": "[secret]"}),
        ({"token": "Hello", "max_tokens": 512}, {"token": "Hello", "max_tokens": 512}),
        ({"arguments": r'{"api_key": "abcd1234"}'}, {"arguments": r'{"api_key": "[secret]"}'}),
    ],
)
def test_data_when_values_have_names_of_secrets_then_they_are_taken_out(data, expected):
    assert Redactor().data(data) == expected


def test_record_when_names_hold_secrets_then_they_are_taken_out():
    key = "sk-proj-abcdefghij0123456789"
    names = ("model", "candidate_id", "candidate_revision", "planned_candidate_id", "task", "metric")
    record = LogRecord(
        record_id="1",
        messages=(Message(role="user", content="Q"),),
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
        source="app",
        finish_reason=f"401 {key}",
        eligible=("small", f"large {key}"),
        **dict.fromkeys(names, f"large {key}"),
    )

    redacted = Redactor().record(record)

    assert {getattr(redacted, name) for name in names} == {"large [secret]"}
    assert redacted.finish_reason == "401 [secret]"
    assert redacted.eligible == ("small", "large [secret]")


def test_record_when_names_only_look_like_personal_data_then_it_is_left_alone():
    record = LogRecord(
        record_id="1",
        messages=(Message(role="user", content="Q"),),
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
        source="app",
        candidate_id="small-212-555-0199",
        model="ann@10.0.0.1",
    )

    assert Redactor("secrets_and_pii").record(record) is record


@pytest.mark.parametrize(
    ("redacted", "original"),
    [
        (None, None),
        ("same", "same"),
        ("[secret]", "[secret]"),
        ("Use [secret].", "Use sk-abcdefghij0123456789."),
        ("[secret] it is", "-----BEGIN PRIVATE KEY-----\nMI IE\n-----END PRIVATE KEY----- it is"),
        ("[EMAIL_1] and [EMAIL_2]", "ann@x.org and eve@x.org"),
        ("[PHONE_1] [PHONE_2] at [IP_ADDRESS_1]", "+1 212 555 0199 (212) 555-0123 at 10.0.0.1"),
        ("Use [secret], [EMAIL_1]", "Use [secret], ann@x.org"),
    ],
)
def test_texts_when_they_differ_by_redaction_alone_then_one_may_be_redacted_from_the_other(
    redacted, original
):
    assert may_be_redacted_from(redacted, original)


@pytest.mark.parametrize(
    ("redacted", "original"),
    [
        (None, "x"),
        ("x", None),
        ("x", "y"),
        ("[secret]", ""),
        ("[secret]", "What is 2 + 2?"),
        ("Use [secret].", "Not sk-abcdefghij0123456789."),
        ("Use [secret].", "Use sk-abcdefghij0123456789!"),
        ("Mail [EMAIL_1]", "Mail everybody"),
        ("Call [PHONE_1] or [PHONE_2]", "Call 212 555 0199 and 212 555 0123"),
        ("ab[secret]ba", "aba"),
    ],
)
def test_texts_when_they_differ_otherwise_then_neither_is_redacted_from_the_other(redacted, original):
    assert not may_be_redacted_from(redacted, original)


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
