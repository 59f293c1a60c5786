"""The service's settings: the only reader of the environment.

Every field is set by CAPTIONING_<FIELD> or by a file of that name in /run/secrets, and is
documented in docs/configuration.md (a test asserts it). Nothing here opens a connection.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import tempfile
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from captioning.errors import SettingsError

PREFIX = "CAPTIONING_"
SECRETS_DIR = Path("/run/secrets")
MODEL_NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?"
HOST = r"\*|\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*"
RATE = r"off|[1-9][0-9]{0,8}/(second|minute|hour|day)"
UNIX_SOCKET_MAX_BYTES = 100  # sun_path holds 104 bytes on macOS, 108 on Linux


class Settings(BaseSettings):
    """All settings, validated and frozen. Units are in the names."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_ignore_empty=True,  # compose files pass on what is not set as empty
        allow_inf_nan=False,
    )

    data_dir: Path = Field(
        default=Path("data"), description="The folder that holds everything the service writes."
    )
    host: str = Field(default="127.0.0.1", description="The address the web server listens on.")
    port: int = Field(
        default=8000, ge=1, le=65535, description="The port the web server listens on."
    )

    access: Literal["open", "keys"] = Field(
        default="open",
        description="Who is let in: `open`, on loopback only, or `keys`: who has an access key.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default_factory=lambda data: (
            ("localhost", data["host"]) if data["access"] == "open" else ("*",)
        ),
        description="Names under which the service may be asked for, beside addresses: "
        "`captions.example,.lan`.",
    )
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        default=(),
        description="Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed: "
        "`127.0.0.1,10.0.0.0/8`.",
    )
    rate_limit: str = Field(
        default_factory=lambda data: "off" if data["access"] == "open" else "1200/minute",
        description="Requests of a key, or of an address where there is none: `600/minute`, `off`.",
    )
    sign_in_limit: str = Field(
        default="10/minute", description="Attempts of an address to sign in: `10/minute`, `off`."
    )
    images_per_day: int | None = Field(
        default=None,
        ge=0,
        description="Images that a key may hand in by day (UTC), if it has no limit of its own.",
    )

    database_url: str = Field(
        default_factory=lambda data: own_database_url(data["data_dir"]),
        repr=False,  # URLs hold passwords
        description="SQLAlchemy URL: `sqlite:///…` or `postgresql+psycopg://…`.",
    )
    broker_url: str = Field(
        default_factory=lambda data: embedded_broker_url(data["data_dir"]),
        repr=False,
        description="Celery broker: `redis://…`; unset, `captioning run` starts a Valkey itself.",
    )
    storage_url: str = Field(
        default_factory=lambda data: (data["data_dir"] / "storage").as_uri(),
        repr=False,
        description="Where images are kept: `file://…`, `s3://bucket`, `gs://…` or `az://…`.",
    )

    models: Annotated[dict[str, str], NoDecode] = Field(
        default={"bundled": "bundled"},
        description="Models on offer, first is the default: `bundled,mine=/path/to/bundle`.",
    )

    max_image_bytes: int = Field(
        default=20_000_000, gt=0, description="Largest file that is accepted, in bytes."
    )
    max_image_pixels: int = Field(
        default=40_000_000,
        gt=0,
        le=89_478_485,
        description="Largest width x height that is decoded, up to the 89 million of Pillow.",
    )
    max_images_per_upload: int = Field(default=100, gt=0, description="Most images in one upload.")
    max_upload_bytes: int = Field(
        default=250_000_000, gt=0, description="Largest upload, all its files together, in bytes."
    )
    max_queued_jobs: int = Field(
        default=100_000, gt=0, description="Waiting jobs at which uploads are refused for a while."
    )
    min_free_bytes: int = Field(
        default=500_000_000,
        ge=0,
        description="Room on the disk of the images below which uploads are refused.",
    )
    fetch_image_urls: bool = Field(
        default=True, description="Whether an image may be given by its public address."
    )
    webhook_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        default=(),
        description="Networks that webhooks may reach though they are not public: "
        "`127.0.0.1/32,192.168.1.0/24`.",
    )
    max_captions: int = Field(
        default=5, gt=0, description="Most candidate captions that one job may ask for."
    )

    web_threads: int = Field(
        default=16, ge=2, description="Requests that the web server answers at once."
    )
    batch_size: int = Field(
        default=8, gt=0, description="Most images in one micro-batch, one pass of the model."
    )
    max_attempts: int = Field(
        default=3, gt=0, description="Times a job is tried before it fails for good."
    )
    lease_s: float = Field(
        default=60, gt=0, description="How long a silent worker keeps the jobs it has claimed."
    )
    heartbeat_s: float = Field(
        default=10,
        gt=0,
        description="How often a worker renews its leases and reports itself.",
        validate_default=True,  # against the lease
    )
    sweep_s: float = Field(
        default=10, gt=0, description="How often expired leases and unheard doorbells are seen to."
    )
    web_metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="The port of the web server's Prometheus metrics, on the same address.",
    )
    worker_metrics_port: int | None = Field(
        default=None, ge=1, le=65535, description="The port of a worker's Prometheus metrics."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="How web and worker log: `text` or `json`, a line an object."
    )

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        try:
            return value.expanduser().resolve()
        except (OSError, RuntimeError) as error:
            raise ValueError(str(error)) from error

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _parse_hosts(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        names = tuple(name.strip().lower() for name in value.split(",") if name.strip())
        for name in names:
            if not re.fullmatch(HOST, name):
                raise ValueError(f"{name!r} is no name of a host; leave out scheme and port")
        return names

    @field_validator("webhook_networks", "trusted_proxies", mode="before")
    @classmethod
    def _parse_networks(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(ip_network(entry.strip()) for entry in value.split(",") if entry.strip())

    @field_validator("rate_limit", "sign_in_limit")
    @classmethod
    def _is_rate(cls, value: str) -> str:
        if not re.fullmatch(RATE, value):
            raise ValueError("use a number by second, minute, hour or day, as 600/minute, or off")
        return value

    @field_validator("models", mode="before")
    @classmethod
    def _parse_models(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [entry.partition("=") for entry in value.split(",") if entry.strip()]
        names = [name.strip() for name, _, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError("each model needs a name of its own")
        sources = [source.strip() for _, _, source in pairs]
        return {name: source or name for name, source in zip(names, sources, strict=True)}

    @field_validator("models")
    @classmethod
    def _named_plainly(cls, value: dict[str, str]) -> dict[str, str]:
        if not value:
            raise ValueError("name at least one model")
        for name in value:
            if not re.fullmatch(MODEL_NAME, name):
                raise ValueError(f"{name!r} is no name: use letters, digits, and . _ - inside")
        return value

    @field_validator("heartbeat_s")
    @classmethod
    def _within_the_lease(cls, value: float, info: ValidationInfo) -> float:
        lease_s = info.data.get("lease_s", math.inf)
        if value * 2 > lease_s:
            raise ValueError("a lease must outlast two heartbeats, or slow work would be lost")
        return value

    @field_validator("database_url")
    @classmethod
    def _supported_database(cls, value: str) -> str:
        try:
            url = make_url(value)
        except ArgumentError as error:
            raise ValueError("it is not a URL") from error
        if url.drivername not in ("sqlite", "postgresql+psycopg"):
            raise ValueError(f"use sqlite or postgresql+psycopg, not {url.drivername}")
        if url.drivername == "sqlite" and url.database in (None, "", ":memory:"):
            raise ValueError("several processes share it: it must be a file")
        return value

    @field_validator("broker_url", "storage_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        scheme, separator, rest = value.partition("://")
        if not (scheme and separator):
            raise ValueError("it is not a URL")
        if scheme == "file" and not rest.startswith("/"):
            raise ValueError("a file URL needs an absolute path: file:///…")
        return value

    @property
    def default_model(self) -> str:
        return next(iter(self.models))

    @property
    def embedded_broker(self) -> bool:
        """Whether `captioning run` has to start the broker itself."""
        return self.broker_url == embedded_broker_url(self.data_dir)


def own_database_url(data_dir: Path) -> str:
    # URL.create and quote: a folder may be called "100%" or "#1".
    return URL.create("sqlite", database=str(data_dir / "captioning.db")).render_as_string()


def embedded_socket(data_dir: Path) -> Path:
    """The Unix socket of the embedded Valkey: in the data folder, or in the temporary
    folder where the data folder's path is too long for a socket address."""
    socket = data_dir / "valkey" / "valkey.sock"
    if len(os.fsencode(socket)) <= UNIX_SOCKET_MAX_BYTES:
        return socket
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"captioning-{os.getuid()}-{digest}.sock"


def embedded_broker_url(data_dir: Path) -> str:
    return f"redis+socket://{quote(str(embedded_socket(data_dir)))}"


def load_settings(**overrides: Any) -> Settings:
    """Read the environment once.

    Raises: SettingsError, one line for each setting that is unknown or wrong.
    """
    known = {f"{PREFIX}{field}".upper() for field in Settings.model_fields}
    unknown = sorted(k for k in os.environ if k.startswith(PREFIX) and k not in known)
    if unknown:
        raise SettingsError("unknown setting: " + ", ".join(unknown))
    secrets_dir = SECRETS_DIR if SECRETS_DIR.is_dir() else None
    try:
        return Settings(_secrets_dir=secrets_dir, **overrides)
    except ValidationError as error:
        # Said of each setting whose default follows from others, when any is wrong.
        consequence = "default_factory_not_called"
        wrong = [_line(item) for item in error.errors() if item["type"] != consequence]
        raise SettingsError("; ".join(wrong)) from error


def _line(item: ErrorDetails) -> str:
    name = "_".join(str(part) for part in item["loc"])
    return f"{PREFIX}{name.upper()}: {item['msg'].removeprefix('Value error, ')}"
