"""The settings: each documented, each slip of the pen refused in one clear line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from captioning.broker import Doorbell, make_celery
from captioning.database import Database
from captioning.errors import SettingsError
from captioning.migrate import migrate
from captioning.settings import (
    PREFIX,
    UNIX_SOCKET_MAX_BYTES,
    Settings,
    embedded_socket,
    load_settings,
)
from captioning.storage import Storage
from tests.servers import Valkey

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without our settings, and no secrets of the machine."""
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("captioning.settings.SECRETS_DIR", tmp_path / "no-secrets")
    monkeypatch.chdir(tmp_path)


def documented() -> dict[str, tuple[str, str]]:
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| `{PREFIX}")]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    return {name.strip("`"): (default, meaning) for name, default, meaning in cells}


def refusal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the page -----------------------------------------------------------------------------


def test_every_setting_is_documented_and_nothing_else() -> None:
    assert list(documented()) == [f"{PREFIX}{field}".upper() for field in Settings.model_fields]


@pytest.mark.parametrize("field", Settings.model_fields)
def test_the_page_says_what_the_field_says(field: str) -> None:
    default, meaning = documented()[f"{PREFIX}{field}".upper()]
    info = Settings.model_fields[field]
    assert meaning == info.description
    if field == "models":
        assert default == "`bundled`"
    elif info.default == ():
        assert default == "none"
    elif info.default is None:
        assert default in ("not served", "no limit")
    elif info.default is not PydanticUndefined:
        assert default == f"`{info.default}`"


# --- reading ------------------------------------------------------------------------------


def test_everything_lies_in_the_data_folder_by_default(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.data_dir == tmp_path / "data"
    assert settings.database_url == f"sqlite:///{tmp_path}/data/captioning.db"
    assert settings.storage_url == f"file://{tmp_path}/data/storage"
    assert str(tmp_path) in settings.broker_url or "captioning-" in settings.broker_url
    assert settings.embedded_broker
    assert (settings.models, settings.default_model) == ({"bundled": "bundled"}, "bundled")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load_settings().port = 1  # type: ignore[misc]


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONING_PORT", "9001")
    monkeypatch.setenv("CAPTIONING_BROKER_URL", "redis://broker:6379/1")
    settings = load_settings()
    assert (settings.port, settings.embedded_broker) == (9001, False)


def test_networks_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONING_WEBHOOK_NETWORKS", "127.0.0.1, fd00::/8,")
    assert [str(network) for network in load_settings().webhook_networks] == [
        "127.0.0.1/32",
        "fd00::/8",
    ]


@pytest.mark.parametrize("wrong", ["192.168.1.5/24", "receiver.example", "1.2.3.4/64"])
def test_what_is_no_network_is_said(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    said = refusal(monkeypatch, WEBHOOK_NETWORKS=wrong)
    assert said.startswith("CAPTIONING_WEBHOOK_NETWORKS: ")
    assert wrong in said


def test_what_a_program_says_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONING_PORT", "9001")
    assert load_settings(port=9002).port == 9002


def test_an_empty_variable_counts_as_not_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for field in Settings.model_fields:
        monkeypatch.setenv(f"{PREFIX}{field}".upper(), "")
    assert load_settings().data_dir == tmp_path / "data"


def test_secrets_are_read_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "captioning_database_url").write_text("postgresql+psycopg://me:secret@db/captions\n")
    (secrets / "captioning_port").write_text("9001\n")
    (secrets / "another_services_key").write_text("none of our business")
    monkeypatch.setattr("captioning.settings.SECRETS_DIR", secrets)
    monkeypatch.setenv("CAPTIONING_PORT", "9002")
    settings = load_settings()
    assert settings.database_url == "postgresql+psycopg://me:secret@db/captions"
    assert settings.port == 9002


@pytest.mark.parametrize(
    ("text", "models"),
    [
        ("bundled", {"bundled": "bundled"}),
        ("mine=/path/to/bundle", {"mine": "/path/to/bundle"}),
        (" a = /x=y , b ,", {"a": "/x=y", "b": "b"}),
        ("coco=someone/coco-bundle,bundled", {"coco": "someone/coco-bundle", "bundled": "bundled"}),
    ],
)
def test_models_are_names_and_where_they_come_from(
    monkeypatch: pytest.MonkeyPatch, text: str, models: dict[str, str]
) -> None:
    monkeypatch.setenv("CAPTIONING_MODELS", text)
    settings = load_settings()
    assert settings.models == models
    assert settings.default_model == next(iter(models))


# --- refusing -----------------------------------------------------------------------------


def test_an_unknown_setting_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(monkeypatch, PROT="8000", MODLES="bundled")
    assert said == "unknown setting: CAPTIONING_MODLES, CAPTIONING_PROT"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("DATA_DIR", "~nobody-of-that-name/captions"),
        ("DATABASE_URL", "captioning.db"),
        ("DATABASE_URL", "postgres://db/captions"),
        ("DATABASE_URL", "postgresql://db/captions"),
        ("DATABASE_URL", "mysql+pymysql://db/captions"),
        ("DATABASE_URL", "sqlite://"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("BROKER_URL", "localhost:6379"),
        ("STORAGE_URL", "/var/lib/captions"),
        ("STORAGE_URL", "file://captions"),
        ("MODELS", ","),
        ("MODELS", "=/path"),
        ("MODELS", "a,b,a=/other"),
        ("MODELS", "../../etc"),
        ("MODELS", "someone/coco-bundle"),
        ("MODELS", "a b"),
        ("MODELS", "x" * 101),
        ("MAX_IMAGE_BYTES", "20MB"),
        ("MAX_IMAGE_PIXELS", "100000000"),
        ("BATCH_SIZE", "0"),
        ("MAX_ATTEMPTS", "-1"),
        ("ALLOWED_HOSTS", "https://captions.example"),
        ("ALLOWED_HOSTS", "captions.example:8000"),
        ("TRUSTED_PROXIES", "proxy"),
        ("RATE_LIMIT", "many"),
        ("RATE_LIMIT", "0/minute"),
        ("RATE_LIMIT", "10 per minute"),
        ("SIGN_IN_LIMIT", "10/fortnight"),
        ("IMAGES_PER_DAY", "-1"),
        ("LEASE_S", "inf"),
        ("SWEEP_S", "nan"),
        ("HEARTBEAT_S", "0"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_setting_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    said = refusal(monkeypatch, **{name: value})
    assert said.startswith(f"CAPTIONING_{name}: ")
    assert said.count("CAPTIONING_") == 1


def test_a_refusal_keeps_passwords_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(monkeypatch, DATABASE_URL="mysql://me:hunter2@db/x", PORT="hunter2")
    assert "hunter2" not in said
    assert said.count("CAPTIONING_") == 2


def test_settings_that_are_printed_keep_passwords_to_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CAPTIONING_DATABASE_URL", "postgresql+psycopg://me:hunter2@db/x")
    monkeypatch.setenv("CAPTIONING_BROKER_URL", "redis://:hunter2@broker/0")
    monkeypatch.setenv("CAPTIONING_STORAGE_URL", "s3://key:hunter2@bucket")
    settings = load_settings()
    assert "hunter2" in settings.database_url
    assert "hunter2" not in f"{settings!r} {settings}"


# --- data folders -------------------------------------------------------------------------


def test_the_socket_moves_where_the_data_folders_path_is_too_long(tmp_path: Path) -> None:
    short, long = Path("/srv/captions"), tmp_path / ("deep" * 30)
    assert embedded_socket(short) == short / "valkey" / "valkey.sock"
    moved = embedded_socket(long)
    assert long not in moved.parents
    assert len(os.fsencode(moved)) <= UNIX_SOCKET_MAX_BYTES
    assert moved == embedded_socket(long)
    assert moved != embedded_socket(long / "other")
    assert load_settings(data_dir=long).embedded_broker


@pytest.mark.parametrize(
    "name", ["a b", "50%", "100%25", "#1", "ünï", "a&b=c", "it's", "[x]", "why?"]
)
def test_any_name_of_a_data_folder_works(name: str, valkey: Valkey) -> None:
    folder = valkey.socket.parent / name
    (folder / "valkey").mkdir(parents=True)
    (folder / "valkey" / "valkey.sock").symlink_to(valkey.socket)
    settings = load_settings(data_dir=folder)

    database = Database(settings.database_url)
    migrate(database)
    database.close()
    Storage(settings.storage_url).put("images/x.jpg", b"x")
    bell = Doorbell(make_celery(settings))
    assert bell.ring("bundled")
    bell.close()

    assert (folder / "captioning.db").is_file()
    assert (folder / "storage" / "images" / "x.jpg").is_file()


@pytest.mark.parametrize("environment", [{"LEASE_S": "15"}, {"LEASE_S": "60", "HEARTBEAT_S": "31"}])
def test_a_lease_outlasts_two_heartbeats(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    assert "CAPTIONING_HEARTBEAT_S" in refusal(monkeypatch, **environment)
