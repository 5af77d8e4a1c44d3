"""Settings: who overrules whom, what is refused in which words, and that none is undocumented."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from ticketrush.errors import SettingsError
from ticketrush.settings import Settings, is_loopback, load, unit_of, variable_of

ROOT = Path(__file__).parents[2]
SECRET = "s" * 32
OTHER = "t" * 40


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A working directory and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(variable_of(name), raising=False)


def write(tmp_path: Path, text: str, name: str = "ticketrush.toml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


# --- precedence --------------------------------------------------------------------------------


def test_defaults_are_overruled_by_the_file_the_environment_and_flags(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path, 'port = 1\nqueue_max = 1\nhost = "10.0.0.1"\n')
    monkeypatch.setenv("TICKETRUSH_PORT", "2")
    monkeypatch.setenv("TICKETRUSH_QUEUE_MAX", "2")
    settings = load(flags={"port": 3})
    assert (settings.port, settings.queue_max, settings.host, settings.batch_max) == (3, 2, "10.0.0.1", 1_024)
    assert [settings.origin(name) for name in ("port", "queue_max", "host", "batch_max")] == [
        "flag",
        "environment TICKETRUSH_QUEUE_MAX",
        "ticketrush.toml",
        "default",
    ]


def test_a_named_file_is_read_instead_of_the_one_that_is_there(tmp_path: Path) -> None:
    write(tmp_path, "port = 1")
    named = write(tmp_path, "queue_max = 7", "other.toml")
    settings = load(named)
    assert (settings.port, settings.queue_max) == (8_000, 7)


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETRUSH_DEMO", "")
    monkeypatch.setenv("TICKETRUSH_PORT", "")
    assert (load().demo, load().port) == (None, 8_000)


def test_settings_made_by_hand_read_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path, "port = 1")
    monkeypatch.setenv("TICKETRUSH_PORT", "2")
    assert Settings().port == 8_000


def test_they_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


# --- what is refused, and in which words -------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"port": 65_536}, ["port = 65536", "from flag", "65535"]),
        ({"port": "abc"}, ["port = abc", "integer"]),
        ({"durability": "hope"}, ["durability = hope", "'fsync', 'memory' or 'replica'"]),
        ({"ledger": "kafka://localhost"}, ["ledger = kafka://localhost", "sqlite:///FILE", "redis://HOST:PORT"]),
        ({"ledger": "mongo://me:hush@localhost"}, ["ledger = (hidden)", "sqlite:///FILE"]),
        ({"ledger": "sqlite:///"}, ["names no file"]),
        ({"ledger": "sqlite:///:memory:"}, ["names no file"]),
        ({"queue_max": 0}, ["queue_max = 0", "greater than or equal to 1"]),
        ({"patience_s": float("nan")}, ["patience_s = nan"]),
        ({"patience_s": float("inf")}, ["patience_s = inf"]),
        ({"prot": 1}, ["prot", "unknown", "'port'"]),
    ],
)
def test_a_wrong_value_is_named_with_what_to_do(flags: dict[str, object], words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(flags=flags)
    for word in words:
        assert word in str(caught.value)


def test_all_wrong_settings_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load(flags={"port": -1, "batch_max": 0})
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(("wrong", "near"), [("prot", "port"), ("Queue-Max", "queue_max"), ("zzz", "")])
def test_an_unknown_name_in_the_file_is_refused_with_the_nearest_known_one(
    tmp_path: Path, wrong: str, near: str
) -> None:
    file = write(tmp_path, f"{wrong} = 1")
    with pytest.raises(SettingsError, match=rf"{file.name}.*'{wrong}'.*{near}"):
        load()


def test_a_table_in_the_file_is_an_unknown_name(tmp_path: Path) -> None:
    write(tmp_path, "[server]\nport = 1")
    with pytest.raises(SettingsError, match="'server'"):
        load()


@pytest.mark.parametrize("text", [b"port = ", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "ticketrush.toml").write_bytes(text)
    with pytest.raises(SettingsError, match=r"ticketrush\.toml is not TOML"):
        load()


def test_a_named_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.toml cannot be read"):
        load(tmp_path / "gone.toml")


# --- secrets -----------------------------------------------------------------------------------


def test_secrets_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETRUSH_TOKEN_SECRETS", f"{SECRET}, {OTHER}")
    assert load().token_keys == (SECRET.encode(), OTHER.encode())


def test_secrets_may_come_from_a_file(tmp_path: Path) -> None:
    write(tmp_path, f'token_secrets = ["{SECRET}"]')
    assert load().token_keys == (SECRET.encode(),)


def test_secrets_are_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETRUSH_TOKEN_SECRETS", f"{SECRET},{OTHER}")
    settings = load()
    shown = f"{settings!r} {settings} {settings.describe()} {settings.model_dump()} {settings.model_dump_json()}"
    assert SECRET not in shown
    assert OTHER not in shown
    assert next(each.value for each in settings.describe() if each.name == "token_secrets") == "2 (hidden)"


@pytest.mark.parametrize("secrets", ["short-secret-of-24-bytes", f"{SECRET},short-secret-of-24-bytes"])
def test_a_short_secret_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, secrets: str) -> None:
    monkeypatch.setenv("TICKETRUSH_TOKEN_SECRETS", secrets)
    with pytest.raises(SettingsError, match="24 bytes and needs 32") as caught:
        load()
    assert "short-secret" not in str(caught.value)
    assert "ticketrush token secret" in str(caught.value)


def test_a_secret_counts_in_bytes_not_letters() -> None:
    assert len(Settings(token_secrets=(SecretStr("é" * 16),)).token_keys[0]) == 32


def test_more_than_two_secrets_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETRUSH_TOKEN_SECRETS", f"{SECRET},{OTHER},{SECRET}")
    with pytest.raises(SettingsError, match="token_secrets") as caught:
        load()
    assert SECRET not in str(caught.value)


# --- who may be served -------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org", ""])
@pytest.mark.parametrize("flags", [{"open": True}, {"demo": 5}, {"demo": 5, "open": False}])
def test_open_and_demo_are_refused_on_the_network(host: str, flags: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="host"):
        load(flags={"host": host, **flags})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_open_and_demo_are_served_on_loopback(host: str) -> None:
    settings = load(flags={"host": host, "demo": 5})
    settings.check_servable()
    assert settings.open
    assert settings.origin("open") == "implied by demo"


def test_without_secrets_nothing_is_served_and_the_message_says_how_to_make_one() -> None:
    with pytest.raises(SettingsError, match="ticketrush token secret"):
        load().check_servable()


def test_with_a_secret_the_network_is_served() -> None:
    Settings(host="0.0.0.0", token_secrets=(SecretStr(SECRET),)).check_servable()


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "127.0.0.1.example.org", "128.0.0.1"])
def test_only_loopback_is_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("ledger", "path"), [("sqlite:///a/b.db", "a/b.db"), ("sqlite:////a/b.db", "/a/b.db"), ("sqlite:///b", "b")]
)
def test_a_ledger_is_a_path(ledger: str, path: str) -> None:
    assert Settings(ledger=ledger).ledger_path == Path(path)


# --- documentation -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_description_and_a_unit(name: str) -> None:
    description = Settings.model_fields[name].description or ""
    assert len(description) > 20
    assert description.endswith(".")
    assert unit_of(name)


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name.endswith(("_s", "_bytes"))])
def test_a_unit_in_the_name_is_the_unit(name: str) -> None:
    assert unit_of(name) == {"s": "seconds", "bytes": "bytes"}[name.rsplit("_", 1)[1]]


def test_the_page_in_docs_has_every_setting_as_it_is() -> None:
    page = str(runpy.run_path(str(ROOT / "scripts" / "configuration_page.py"))["page"]())
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == page, "docs/configuration.md is stale: run `make docs`"
    for name in Settings.model_fields:
        assert f"### `{name}`" in written
        assert f"`{variable_of(name)}`" in written


# --- payments ------------------------------------------------------------------------------------

WEBHOOK_SECRET = "whsec_" + "QUJD" * 10


def test_a_payment_gateway_needs_a_secret_for_its_webhooks() -> None:
    with pytest.raises(SettingsError, match="ticketrush token webhook-secret"):
        Settings(open=True, payment_gateway="http://127.0.0.1:9000").check_servable()
    Settings(
        open=True, payment_gateway="http://127.0.0.1:9000", webhook_secrets=(SecretStr(WEBHOOK_SECRET),)
    ).check_servable()


def test_webhooks_need_a_gateway_that_gives_money_back() -> None:
    with pytest.raises(SettingsError, match=r"payment_gateway is empty.*given back"):
        Settings(open=True, webhook_secrets=(SecretStr(WEBHOOK_SECRET),)).check_servable()


@pytest.mark.parametrize("url", ["127.0.0.1:9000", "ftp://x", "http://", "http://x?y=1", "http://[::1"])
def test_a_payment_gateway_is_a_url(url: str) -> None:
    with pytest.raises(SettingsError, match=r"payment_gateway = .*write http://HOST:PORT"):
        load(flags={"payment_gateway": url})


def test_webhook_secrets_and_the_gateways_password_are_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETRUSH_WEBHOOK_SECRETS", f"{WEBHOOK_SECRET}, {WEBHOOK_SECRET}")
    monkeypatch.setenv("TICKETRUSH_PAYMENT_GATEWAY", "https://me:pass-word@pay.example")
    settings = load()
    shown = {each.name: each.value for each in settings.describe()}
    assert (shown["webhook_secrets"], shown["payment_gateway"]) == ("2 (hidden)", "https://pay.example")
    assert "QUJD" not in repr(settings)


@pytest.mark.parametrize("secret", ["whsec_short", "QUJD" * 10, "whsec_" + "?" * 40])
def test_a_webhook_secret_of_the_wrong_form_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(SettingsError, match=r"webhook_secrets = \(hidden\).*secret 2") as refused:
        load(flags={"webhook_secrets": f"{WEBHOOK_SECRET},{secret}"})
    assert secret not in str(refused.value)


# --- the clients of Kafka ----------------------------------------------------------------------

SASL = "security.protocol=SASL_SSL, sasl.mechanism=PLAIN,sasl.username=shop,sasl.password=open=sesame"


@pytest.mark.parametrize(
    "brokers", ["http://foo", "http://foo:9092", "PLAINTEXT://foo:9092", "foo", "foo:", ":9092", "a:1,b", "a:1,", "a:x"]
)
def test_a_broker_without_a_host_and_a_port_is_refused(brokers: str) -> None:
    with pytest.raises(SettingsError, match=r"kafka = .*write HOST:PORT"):
        load(flags={"kafka": brokers})


@pytest.mark.parametrize("brokers", ["", "kafka:9092", "k-1.example.org:9092, k_2:9093", "[::1]:9092"])
def test_brokers_have_a_host_and_a_port(brokers: str) -> None:
    assert load(flags={"kafka": brokers}).kafka == brokers


def test_options_of_kafka_are_split_at_commas_and_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETRUSH_KAFKA_OPTIONS", SASL)
    settings = load()
    assert settings.kafka_properties == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "shop",
        "sasl.password": "open=sesame",
    }
    assert next(each.value for each in settings.describe() if each.name == "kafka_options") == "4 (hidden)"
    assert "sesame" not in repr(settings) + str(settings.describe())


def test_an_option_of_kafka_with_a_comma_comes_from_a_file(tmp_path: Path) -> None:
    write(tmp_path, 'kafka_options = ["sasl.password=one,two", "client.id=a"]')
    assert load().kafka_properties == {"sasl.password": "one,two", "client.id": "a"}


@pytest.mark.parametrize(
    "name",
    [
        "acks",
        "enable.idempotence",
        "enable.auto.commit",
        "group.id",
        "bootstrap.servers",
        "auto.offset.reset",
        "log_cb",
    ],
)
def test_an_option_of_kafka_that_promises_depend_on_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"kafka_options = \(hidden\).*part 2 sets {name}, which cannot"
    ) as refused:
        load(flags={"kafka_options": f"sasl.password=sesame,{name}=1"})
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize("part", ["sesame", "Sesame=1", "=sesame", "client.id=", "se same=x", ""])
def test_what_is_no_option_of_kafka_is_refused_and_not_shown(part: str) -> None:
    with pytest.raises(SettingsError, match=r"part 2 is not name=value; write a value .* TOML") as refused:
        load(flags={"kafka_options": f"client.id=a,{part}"})
    assert "same" not in str(refused.value).replace("name=value", "")
