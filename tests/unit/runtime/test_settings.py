"""Settings: where they come from, and the messages for wrong ones."""

import os

import pytest

from dataflow.clickstream.rules import Rules
from dataflow.runtime.settings import PREFIX, Settings, load
from dataflow.streaming.errors import UserError


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    """An environment without settings, in a directory without `.env`."""
    for name in os.environ:
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_nothing_need_be_set():
    settings = load()
    assert settings.brokers == "localhost:19092,localhost:19091,localhost:19090"
    assert settings.inputs == ("user-events", "purchases")
    assert settings.outputs == (
        "visits",
        "suspicious-visits",
        "late-events",
        "dead-letters",
        "unmatched-purchases",
        "sessions",
    )
    assert settings.rules == Rules()


def test_every_setting_has_a_description():
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("name", "value", "field", "meaning"),
    [
        ("VISITS_SESSION_GAP", "1800", "session_gap", 1800),
        ("VISITS_SESSION_GAP", "0.000001", "session_gap", 0.000001),
        ("VISITS_MATCH_WINDOW", "0", "match_window", 0),
        ("VISITS_ALLOWED_LATENESS", "0", "allowed_lateness", 0),
        ("VISITS_ALLOWED_LATENESS", "2.5", "allowed_lateness", 2.5),
        ("VISITS_MAX_EVENTS", "1", "max_events", 1),
        ("VISITS_MIN_PAGE_VIEWS", "0", "min_page_views", 0),
        ("VISITS_SHARDS", "1", "shards", 1),
        ("VISITS_SHARDS", "1024", "shards", 1024),
        ("VISITS_START", "latest", "start", "latest"),
        ("VISITS_STOP_AT_END", "1", "stop_at_end", True),
        ("VISITS_STOP_AT_END", "0", "stop_at_end", False),
        ("VISITS_PARTITIONER", "murmur2", "partitioner", "murmur2"),
        ("VISITS_TOPIC_LATE_EVENTS", "too_late.v1", "topic_late_events", "too_late.v1"),
        ("visits_shards", "3", "shards", 3),
    ],
)
def test_settings_come_from_the_environment(monkeypatch, name, value, field, meaning):
    monkeypatch.setenv(name, value)
    assert getattr(load(), field) == meaning


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("VISITS_SESSION_GAP", "-1", "VISITS_SESSION_GAP: Input should be greater than 0"),
        ("VISITS_SESSION_GAP", "0", "VISITS_SESSION_GAP: Input should be greater than 0"),
        ("VISITS_SESSION_GAP", "nan", "VISITS_SESSION_GAP: Input should be a finite number"),
        ("VISITS_SESSION_GAP", "inf", "VISITS_SESSION_GAP: Input should be a finite number"),
        ("VISITS_SESSION_GAP", "1e30", "VISITS_SESSION_GAP: Input should be less than or equal to 1000000000"),
        ("VISITS_SESSION_GAP", "20s", "VISITS_SESSION_GAP: Input should be a valid number"),
        ("VISITS_SESSION_GAP", "", "VISITS_SESSION_GAP: Input should be a valid number"),
        ("VISITS_DRAIN_TIMEOUT", "nan", "VISITS_DRAIN_TIMEOUT: Input should be a finite number"),
        ("VISITS_DRAIN_TIMEOUT", "inf", "VISITS_DRAIN_TIMEOUT: Input should be a finite number"),
        ("VISITS_DRAIN_TIMEOUT", "-1", "VISITS_DRAIN_TIMEOUT: Input should be greater than 0"),
        ("VISITS_OUTAGE_GRACE", "nan", "VISITS_OUTAGE_GRACE: Input should be a finite number"),
        ("VISITS_MATCH_WINDOW", "-0.1", "VISITS_MATCH_WINDOW: Input should be greater than or equal to 0"),
        ("VISITS_ALLOWED_LATENESS", "-5", "VISITS_ALLOWED_LATENESS: Input should be greater than or equal to 0"),
        ("VISITS_MAX_EVENTS", "0", "VISITS_MAX_EVENTS: Input should be greater than or equal to 1"),
        ("VISITS_MAX_EVENTS", "2.5", "VISITS_MAX_EVENTS: Input should be a valid integer"),
        ("VISITS_SHARDS", "0", "VISITS_SHARDS: Input should be greater than or equal to 1"),
        ("VISITS_SHARDS", "1025", "VISITS_SHARDS: Input should be less than or equal to 1024"),
        ("VISITS_START", "beginning", "VISITS_START: Input should be 'earliest' or 'latest'"),
        ("VISITS_STOP_AT_END", "perhaps", "VISITS_STOP_AT_END: Input should be a valid boolean"),
        ("VISITS_PARTITIONER", "random", "VISITS_PARTITIONER: Input should be 'crc32' or 'murmur2'"),
        ("VISITS_BROKERS", "", "VISITS_BROKERS: String should have at least 1 character"),
        ("VISITS_GROUP", "", "VISITS_GROUP: String should match pattern"),
        ("VISITS_TOPIC_VISITS", "my visits", "VISITS_TOPIC_VISITS: String should match pattern"),
        ("VISITS_TOPIC_VISITS", "", "VISITS_TOPIC_VISITS: String should match pattern"),
        ("VISITS_TOPIC_VISITS", "x" * 250, "VISITS_TOPIC_VISITS: String should match pattern"),
        ("VISITS_TOPIC_VISITS", "user-events", "topic 'user-events' is named twice"),
        ("VISITS_TOPIC_PURCHASES", "user-events", "topic 'user-events' is named twice"),
        ("VISITS_TOPIC_DEAD_LETTERS", "late-events", "topic 'late-events' is named twice"),
        ("VISITS_KAFKA_FILE", "nowhere.properties", "VISITS_KAFKA_FILE: there is no such file"),
    ],
)
def test_an_impossible_value_is_refused_in_one_line_with_the_reason(monkeypatch, name, value, reason):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        load()
    assert str(caught.value).startswith(f"wrong setting: {reason}")
    assert "\n" not in str(caught.value)


def test_all_wrong_settings_are_reported_at_once(monkeypatch):
    monkeypatch.setenv("VISITS_SHARDS", "0")
    monkeypatch.setenv("VISITS_SESSION_GAP", "-1")
    with pytest.raises(UserError, match=r"^wrong setting: VISITS_SESSION_GAP: .*; VISITS_SHARDS: .*$"):
        load()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("VISITS_SESION_GAP", "there is no setting VISITS_SESION_GAP; did you mean VISITS_SESSION_GAP?"),
        ("VISITS_SESSIONGAP", "there is no setting VISITS_SESSIONGAP; did you mean VISITS_SESSION_GAP?"),
        ("VISITS_FROBNICATE", "there is no setting VISITS_FROBNICATE; docs/settings.md lists the settings"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_name(monkeypatch, tmp_path, name, line):
    monkeypatch.setenv(name, "1")
    with pytest.raises(UserError) as caught:
        load()
    assert str(caught.value) == line
    monkeypatch.delenv(name)
    (tmp_path / ".env").write_text(f"{name}=1\n")
    with pytest.raises(UserError) as caught:
        load()
    assert str(caught.value) == line


def test_variables_of_other_programs_are_ignored(monkeypatch, tmp_path):
    monkeypatch.setenv("VISITOR", "1")
    (tmp_path / ".env").write_text("SHARDS=0\nBYTEWAX_WORKERS_PER_PROCESS=2\n")
    assert load() == Settings()


def test_dot_env_is_read_and_the_environment_wins(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text(
        "# ours\nVISITS_SHARDS=3\nVISITS_SESSION_GAP='30'\nVISITS_KAFKA_SASL_PASSWORD=file\n"
    )
    monkeypatch.setenv("VISITS_SHARDS", "4")
    settings = load()
    assert (settings.shards, settings.session_gap, settings.client["sasl.password"]) == (4, 30, "file")


def test_kafka_properties_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("VISITS_BROKERS", "kafka:9092")
    monkeypatch.setenv("VISITS_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("VISITS_KAFKA_SASL_PASSWORD", "s3cret$with=signs#")
    assert load().client == {
        "bootstrap.servers": "kafka:9092",
        "security.protocol": "SASL_SSL",
        "sasl.password": "s3cret$with=signs#",
    }


def test_kafka_properties_come_from_a_file_and_the_environment_wins(monkeypatch, tmp_path):
    file = tmp_path / "client.properties"
    file.write_text("# ours\nsasl.username = shop\nsasl.password=a$b=c\n\nssl.ca.location=/etc/ca.pem\n")
    monkeypatch.setenv("VISITS_KAFKA_FILE", str(file))
    monkeypatch.setenv("VISITS_KAFKA_SASL_USERNAME", "job")
    assert load().client == {
        "bootstrap.servers": load().brokers,
        "sasl.username": "job",
        "sasl.password": "a$b=c",
        "ssl.ca.location": "/etc/ca.pem",
    }


def test_secrets_are_never_shown(monkeypatch):
    monkeypatch.setenv("VISITS_KAFKA_SASL_PASSWORD", "s3cret")
    settings = load()
    assert "s3cret" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert settings.client["sasl.password"] == "s3cret"


def test_secrets_are_not_shown_when_another_setting_is_wrong(monkeypatch):
    monkeypatch.setenv("VISITS_KAFKA_SASL_PASSWORD", "s3cret")
    monkeypatch.setenv("VISITS_TOPIC_VISITS", "user-events")
    with pytest.raises(UserError) as caught:
        load()
    assert "s3cret" not in str(caught.value)


def test_seconds_become_microseconds_exactly(monkeypatch):
    monkeypatch.setenv("VISITS_SESSION_GAP", "0.1")
    monkeypatch.setenv("VISITS_MATCH_WINDOW", "1.000001")
    monkeypatch.setenv("VISITS_ALLOWED_LATENESS", "4.35")
    assert load().rules == Rules(gap=100_000, window=1_000_001, lateness=4_350_000)
