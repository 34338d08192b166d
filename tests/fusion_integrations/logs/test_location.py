from pathlib import Path

import pytest

from fusion_integrations.errors import LogStoreError
from fusion_integrations.logs.location import parse_location, store_label


@pytest.mark.parametrize(
    ("location", "label"),
    [
        ("logs.sqlite", "logs.sqlite"),
        (Path("folder/logs.sqlite"), "folder/logs.sqlite"),
        (":memory:", ":memory:"),
        ("postgresql://me:s3cret@host/logs", "postgresql://me:***@host/logs"),
        ("postgresql://host/logs?password=s3cret&user=me", "postgresql://host/logs?password=hidden&user=me"),
        ("postgresql://host/logs?sslpassword=s3cret", "postgresql://host/logs?sslpassword=hidden"),
    ],
)
def test_label_when_there_is_a_password_then_hides_it(location, label):
    assert store_label(location) == label


@pytest.mark.parametrize(
    "location",
    ["://s3cret", "postgresql://me:s3cret@host:port/logs", "postgresql://me:s3cret@[::1/logs"],
)
def test_location_when_it_cannot_be_parsed_then_says_how_to_write_it_without_repeating_it(location):
    for read in (store_label, parse_location):
        with pytest.raises(LogStoreError, match=r"Write it as sqlite:///PATH or postgresql://") as caught:
            read(location)
        assert "s3cret" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_location_when_it_is_of_sqlite_then_is_its_path():
    assert parse_location("sqlite:///folder/logs.sqlite") == "folder/logs.sqlite"
    assert parse_location("sqlite://") == ":memory:"
    with pytest.raises(LogStoreError, match=r"'sqlite:///a\?password=hidden' has options"):
        parse_location("sqlite:///a?password=s3cret")
