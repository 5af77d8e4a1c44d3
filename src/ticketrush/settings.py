"""Settings: defaults < TOML file < environment (``TICKETRUSH_…``) < flags.

`Settings` is the frozen value; making one by hand reads nothing but its arguments. `load` gathers
one from all four places and remembers where each value came from. Every setting has a description
and a unit here, from which ``docs/configuration.md`` and ``ticketrush config show`` are made.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ticketrush.addresses import (
    FILE,
    check_brokers,
    check_ledger,
    check_orders,
    check_web,
    is_loopback,
    without_password,
)
from ticketrush.credentials import SECRET_SETTINGS, check_setting, shown, shown_as_given
from ticketrush.errors import SettingsError

__all__ = ["Described", "Settings", "is_loopback", "load", "unit_of", "variable_of", "without_password"]

ENV_PREFIX: Final = "TICKETRUSH_"
CONFIG_FILE: Final = Path("ticketrush.toml")
"""Read from the working directory when no other file is named, if it is there."""

_ADDRESSES: Final = {"orders": check_orders, "kafka": check_brokers, "payment_gateway": check_web}
"""Settings that may be empty, and who knows what else they may be."""


def _setting(default: object, unit: str, description: str, **bounds: Any) -> Any:
    """A field that cannot be written without a unit and a description."""
    return Field(default, description=description, json_schema_extra={"unit": unit}, **bounds)


class Settings(BaseSettings):
    """Everything that can be set. Frozen, validated, and safe to log: secrets print as stars."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    host: str = _setting("127.0.0.1", "name or address", "Address to listen on.", min_length=1)
    port: int = _setting(8000, "port", "TCP port to listen on; 0 takes a free one.", ge=0, le=65_535)
    ledger: str = _setting(
        "sqlite:///ticketrush.db",
        "URL",
        "Where the ledger is. For one process: sqlite:/// and a path (relative), or sqlite://// and a path from the "
        "root. For many nodes: redis://, redis+sentinel:// or redis+cluster:// (rediss for TLS) and a Redis or Valkey.",
    )
    durability: Literal["fsync", "memory", "replica"] = _setting(
        "fsync",
        "fsync, memory or replica",
        "What a success survives. fsync: a crash of the process, of the system, and a power cut. "
        "memory: a crash of the process only. replica (Redis): the loss of the server, when a replica has it.",
    )
    node: str = _setting(
        "",
        "name",
        "Name of this node in Redis and in logs; empty makes one of the host's name and the process id.",
        pattern=r"^[A-Za-z0-9._~-]{0,64}$",
    )
    shards: int = _setting(
        1, "books", "Over how many books a sale that is created here is spread (Redis Cluster).", ge=1, le=64
    )
    lease_ahead: int = _setting(
        4,
        "batches",
        "How many batches' worth of units a busy node takes out of Redis in advance, to sell from its own memory; "
        "0 asks for exactly what each batch needs.",
        ge=0,
        le=64,
    )
    orders: str = _setting(
        "",
        "URL",
        "Where orders are kept: sqlite:/// and a path, or postgresql://user:password@host:port/database. "
        "Empty: nowhere; what was reserved and paid is in the ledger all the same.",
    )
    kafka: str = _setting(
        "",
        "host:port, …",
        "Brokers of Apache Kafka. With them a relay publishes what happens to reservations, and the order worker "
        "reads it there; without, the worker reads the ledger's own events.",
    )
    kafka_topic: str = _setting(
        "ticketrush.notices",
        "name",
        "The topic for what happens to reservations.",
        pattern=r"^[A-Za-z0-9._-]{1,249}$",
    )
    kafka_options: Annotated[tuple[SecretStr, ...], NoDecode] = _setting(
        (),
        "name=value, …",
        "More properties of librdkafka for all clients of Kafka, in the environment separated by commas, such as "
        "security.protocol=SASL_SSL,sasl.mechanism=PLAIN,sasl.username=…,sasl.password=…; a value with a comma in it "
        "belongs in the TOML file, in a list. What delivery and reading depend on cannot be changed.",
    )
    open: bool = _setting(
        False,
        "true or false",
        "Serve without tokens: the header X-Buyer names the buyer and everyone is an operator. Loopback only.",
    )
    demo: int | None = _setting(
        None,
        "units",
        "Open a demo sale of this many units, with the call /buy/ticket. Implies open; loopback only.",
        ge=1,
        le=1_000_000_000,
    )
    stat_log: Path | None = _setting(None, "file", "Write one line a demo request to it: result:1,localSales:151.")
    fast_lane: bool = _setting(
        True,
        "true or false",
        "Answer reservations inside the HTTP protocol class. Off, FastAPI answers the same, slower.",
    )
    token_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = _setting(
        (),
        "secrets",
        "One or two HS256 secrets of at least 32 bytes each, in the environment separated by a comma. "
        "The first signs, both verify, so that secrets can be changed while tokens are about.",
        max_length=2,
    )
    token_audience: str = _setting("ticketrush", "text", "The aud claim that a token must have.", min_length=1)
    payment_gateway: str = _setting(
        "",
        "URL",
        "Where payments are made, as ticketrush test-gateway takes them: http://HOST:PORT. It tells of them by "
        "webhook. Empty: a test gateway in the process, which forgets with it.",
    )
    webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = _setting(
        (),
        "secrets",
        "One or two secrets that sign webhooks of payment_gateway, which must be set; whsec_ and Base64 each, in the "
        "environment separated by a comma. Both verify, so that they can be changed. Without one no webhook is taken.",
        max_length=2,
    )
    queue_max: int = _setting(
        16_384,
        "requests",
        "Reservations that may wait for a commit; one more is answered 503 at once.",
        ge=1,
        le=1_000_000,
    )
    batch_max: int = _setting(1_024, "requests", "Most reservations that one commit decides.", ge=1, le=65_536)
    body_max_bytes: int = _setting(
        16_384, "bytes", "Longest request body; a longer one is answered 413.", ge=1_024, le=16_777_216
    )
    header_max_bytes: int = _setting(
        32_768,
        "bytes",
        "Longest request line and headers together; longer ones are answered 431.",
        ge=1_024,
        le=1_048_576,
    )
    request_timeout_s: float = _setting(
        10.0, "seconds", "Longest time a client may take to send a request, then 408.", gt=0, le=3_600
    )
    keep_alive_timeout_s: float = _setting(75.0, "seconds", "How long an idle connection stays open.", gt=0, le=3_600)
    patience_s: float = _setting(
        2.0,
        "seconds",
        "Longest wait for a batch, then 503 unavailable; and then for its commit, then 503 unknown.",
        gt=0,
        le=60,
    )
    graceful_timeout_s: float = _setting(
        10.0, "seconds", "Longest wait at a stop for requests under way; whole seconds, 1 at least.", ge=0, le=3_600
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "debug, info, warning or error", "Least serious line to log: debug, info, warning or error."
    )
    log_format: Literal["console", "json"] = _setting(
        "console", "console or json", "Log lines for people (console) or machines (json); both go to standard error."
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the arguments: what else counts, and in which order, is decided in `load` alone."""
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _demo_is_open(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {"open": True, **values} if values.get("demo") is not None else values

    @field_validator("ledger")
    @classmethod
    def _ledger_is_known(cls, value: str) -> str:
        check_ledger(value)
        return value

    @field_validator(*_ADDRESSES)
    @classmethod
    def _address_is_known(cls, value: str, info: ValidationInfo) -> str:
        if value:
            _ADDRESSES[str(info.field_name)](value)
        return value

    @field_validator(*SECRET_SETTINGS, mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator(*SECRET_SETTINGS)
    @classmethod
    def _secrets_are_good(cls, value: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        check_setting(str(info.field_name), [secret.get_secret_value() for secret in value])
        return value

    @model_validator(mode="after")
    def _open_is_local(self) -> Settings:
        if (self.open or self.demo is not None) and not is_loopback(self.host):
            why = f"demo = {self.demo}" if self.demo is not None else "open = true"
            raise ValueError(
                f"host = {self.host} with {why} would let everybody on the network buy and operate without a token; "
                "listen on 127.0.0.1, or leave it out and set TICKETRUSH_TOKEN_SECRETS"
            )
        return self

    @property
    def ledger_path(self) -> Path:
        """The journal's file."""
        return Path(self.ledger.removeprefix(FILE))

    @property
    def token_keys(self) -> tuple[bytes, ...]:
        """The secrets as the bytes that sign: the first mints, all verify."""
        return tuple(secret.get_secret_value().encode() for secret in self.token_secrets)

    @property
    def kafka_properties(self) -> dict[str, str]:
        """`kafka_options` by name."""
        parts = (option.get_secret_value().partition("=") for option in self.kafka_options)
        return {name.strip(): value for name, _, value in parts}

    def check_servable(self) -> None:
        """Raises SettingsError unless a server may start with these: tokens can be checked, or it is open."""
        if self.payment_gateway and not self.webhook_secrets:
            raise SettingsError(
                "webhook_secrets is empty, so no news of the payment gateway could be believed. Make a secret with "
                "`ticketrush token webhook-secret`, set it as TICKETRUSH_WEBHOOK_SECRETS, and give it to the gateway."
            )
        if self.webhook_secrets and not self.payment_gateway:
            raise SettingsError(
                "payment_gateway is empty, so money that a webhook tells of could not be given back. Set "
                "TICKETRUSH_PAYMENT_GATEWAY to the gateway that sends the webhooks, or leave webhook_secrets out."
            )
        if not self.open and not self.token_secrets:
            raise SettingsError(
                "token_secrets is empty, so no buyer could prove who they are. Make a secret with "
                "`ticketrush token secret` and set it as TICKETRUSH_TOKEN_SECRETS, "
                "or serve without tokens on this machine only with --open."
            )

    def origin(self, name: str) -> str:
        """Where the value of the setting `name` came from: "default", a file, a variable, "flag"."""
        return self._origins.get(name, "default")

    def describe(self) -> tuple[Described, ...]:
        """Every setting with its value as text (secrets hidden) and where the value came from."""
        return tuple(
            Described(
                name=name,
                value=shown(name, getattr(self, name)),
                origin=self.origin(name),
                unit=unit_of(name),
                description=field.description or "",
            )
            for name, field in type(self).model_fields.items()
        )


@dataclass(frozen=True, slots=True)
class Described:
    """One setting for people: `value` is text and hides secrets; `origin` is where it came from."""

    name: str
    value: str
    origin: str
    unit: str
    description: str

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return variable_of(self.name)


def load(config_file: Path | None = None, flags: Mapping[str, object] | None = None) -> Settings:
    """The settings of this process: defaults < TOML file < environment < `flags`.

    Without `config_file`, ``ticketrush.toml`` in the working directory is read if it is there.
    `flags` has only what was given on the command line, by setting name.

    Raises SettingsError that names each wrong setting, its value, where it came from, what to do.
    """
    file = config_file or (CONFIG_FILE if CONFIG_FILE.is_file() else None)
    layers: list[tuple[str, Mapping[str, object]]] = []
    if file is not None:
        layers.append((str(file), _read_toml(file)))
    layers.append(("environment", EnvSettingsSource(Settings)()))
    layers.append(("flag", flags or {}))
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        for name, value in layer.items():
            values[name] = value
            origins[name] = f"{origin} {variable_of(name)}" if origin == "environment" else origin
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise SettingsError(_explain(error, values, origins)) from None
    if settings.open and "open" not in values:
        origins["open"] = "implied by demo"
    settings._origins.update(origins)
    return settings


def variable_of(name: str) -> str:
    """The environment variable of the setting `name`."""
    return ENV_PREFIX + name.upper()


def unit_of(name: str) -> str:
    """The unit of the setting `name`."""
    extra = Settings.model_fields[name].json_schema_extra
    return str(extra["unit"]) if isinstance(extra, dict) else ""


def _read_toml(file: Path) -> dict[str, object]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not TOML: {error}.") from None
    for name in values:
        if name not in Settings.model_fields:
            raise SettingsError(f"{file} has an unknown setting {name!r}. {_nearest(name)}")
    return values


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name.lower().replace("-", "_"), Settings.model_fields, n=1, cutoff=0.0)
    return f"Did you mean {near[0]!r}? `ticketrush config show` lists all."


def _explain(error: ValidationError, values: Mapping[str, object], origins: Mapping[str, str]) -> str:
    lines = []
    for wrong in error.errors(include_url=False, include_input=False):
        why = wrong["msg"].removeprefix("Value error, ").replace("Input should be", "it should be")
        name = str(wrong["loc"][0]) if wrong["loc"] else ""
        if wrong["type"] == "extra_forbidden":
            lines.append(f"{name} is an unknown setting. {_nearest(name)}")
        elif name:
            value = shown_as_given(name, values.get(name))
            lines.append(f"{name} = {value} (from {origins.get(name, 'default')}): {why}.")
        else:
            lines.append(f"{why}.")
    return "\n".join(lines)
