"""All settings in one frozen value, built once from the environment, every error reported together.

Each setting is the variable TOLLMETER_<NAME IN CAPITALS>; `.env.example` lists them. Secrets never show in a repr.
"""

import ipaddress
import ssl
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
)

from tollmeter.schemas.addresses import IPV6_PREFIX

PREFIX = "TOLLMETER_"

Positive = Annotated[int, Field(gt=0)]
Word = Annotated[str, Field(pattern=r"^[^\s\x00-\x1f\x7f-\x9f]{1,32}$")]
NanoUsd = Annotated[int, Field(ge=0)]


def _as_int(value: object) -> object:
    """A number out of the environment is text."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _address(value: str) -> str:
    """An address of this machine, as a number: a name may lead elsewhere tomorrow."""
    return str(ipaddress.ip_address(value))


class SettingsError(ValueError):
    """One or more settings are wrong; the text names each with what was expected."""


class Settings(BaseModel):
    """Where things are and how the line behaves. Defaults serve `tollmeter up` on one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Kafka
    kafka: str = "127.0.0.1:9092"
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    kafka_user: str = ""
    kafka_password: SecretStr = SecretStr("")
    kafka_ca_file: str = ""
    kafka_replication: Positive = 1
    group_prefix: str = "tollmeter"
    topic_prefix: Annotated[str, Field(pattern=r"^[\w.-]*$")] = ""
    """Put before every topic name, so that several lines can share one cluster."""
    session_timeout_s: Annotated[float, Field(ge=1, le=90)] = 10.0
    poll_interval_s: Annotated[float, Field(ge=1)] = 1_000.0
    """A worker whose fetch loop stands still for so long leaves its group; waiting for ClickHouse does not count."""
    # Partition counts are fixed at set-up, stored in usage.policies and checked by every worker.
    partitions_events: Positive = 4
    partitions_priced: Positive = 4

    # ClickHouse
    clickhouse: str = "http://127.0.0.1:8123"
    clickhouse_user: str = "default"
    clickhouse_password: SecretStr = SecretStr("")
    clickhouse_database: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")] = "tollmeter"
    clickhouse_timeout_s: Annotated[float, Field(gt=0)] = 30.0

    # Health and metrics of a worker
    health_host: Annotated[str, AfterValidator(_address)] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 or :: for all. Nothing asks for a password there."""
    health_port: Annotated[int | None, Field(ge=0, le=65_535)] = None
    """0 = any free port; None = the stage's own of `HEALTH_PORTS`, or any free one where that is taken."""

    # `tollmeter up`
    start_limit_s: Annotated[float, Field(gt=0)] = 900.0
    """It gives up after so many seconds; sooner only when nothing moves for a minute."""

    # Retention, days
    retention_events_days: Positive = 400
    retention_minutes_days: Positive = 800
    retention_windows_days: Positive = 400
    retention_alerts_days: Positive = 800
    retention_coverage_days: Positive = 400
    retention_bills_days: Positive = 3_650

    # PRICE
    prices_file: str = ""
    """Override layer in front of the price book; "" = the one that ships with the package."""
    fx_file: str = ""
    fx_max_age_days: Positive = 7
    """Amounts in EUR and RUB are NULL where the last rate before a call's day is older."""
    fx_stale_margin_pct: Annotated[int, Field(ge=0, le=100)] = 5
    """With such a rate limits go on, at so much more."""
    at_risk_usd_per_mtok: Positive = 75
    """What a model that no source knows puts at risk, for limits; it is never billed."""
    price_batch: Positive = 20_000

    # LEDGER
    ledger_block_rows: Positive = 100_000
    """Of a backlog. What ClickHouse stores in larger blocks it merges less often, which is half of its work."""
    ledger_block_s: Annotated[float, Field(gt=0)] = 0.5
    rollup_quiet_s: Annotated[float, Field(ge=0)] = 60.0
    verify_every_s: Annotated[float, Field(ge=0)] = 3_600.0
    """How often the line checks itself against its log; 0 = never."""

    # Bills
    bill_gap_pct: Annotated[float, Field(gt=0, le=100)] = 2.0
    """A closed day whose bill differs from the ledger by more than this share of it is an alert, and exit code 1."""

    # WATCH
    horizon_s: Positive = 3_600
    close_after_s: Annotated[int, Field(ge=0)] = 120
    seen_cap: Positive = 5_000_000
    watch_scopes_per_org: Positive = 10_000
    watch_sessions_per_org: Positive = 100_000
    """Sessions, and runs, of one organisation that are remembered while their period lasts; of more, the most used."""
    """Names of one kind (keys, users, IPs ...) with totals of their own per organisation and month; the rest is one."""
    checkpoint_s: Annotated[float, Field(gt=0)] = 5.0
    alert_max_age_h: Positive = 48
    spike_floor_minute_nano: NanoUsd = 1_000_000_000
    spike_floor_hour_nano: NanoUsd = 5_000_000_000
    new_key_floor_hour_nano: NanoUsd = 10_000_000_000
    spike_factor: Positive = 3
    unpriced_share_pct: Annotated[float, Field(gt=0, le=100)] = 1.0

    # Guard
    max_usd: Annotated[Decimal, Field(gt=0, le=1_000)] = Decimal("0.05")
    """Cap on the estimate of one call."""
    guard_http_status: Annotated[Literal[402, 429], BeforeValidator(_as_int)] = 402
    """HTTP status of refusals for money."""
    guard_fail: Literal["open", "closed"] = "open"
    """What happens to a call whose budgets are not known, or not known any more: it passes, or it is refused."""
    guard_stale_s: Annotated[float, Field(gt=0)] = 30.0
    rate_ipv6_prefix: Annotated[int, Field(ge=1, le=128)] = IPV6_PREFIX
    """Rate limits count an IPv6 network of so many bits as one address: whoever has one, has all addresses in it."""
    guard_lease_s: Annotated[float, Field(gt=0)] = 600.0
    guard_slack_s: Annotated[float, Field(ge=0)] = 2.0
    guards: Annotated[int, Field(gt=0, le=10_000)] = 1
    guard_output_tokens: Annotated[int, Field(ge=0)] = 0

    # Proxy
    proxy_file: str = ""
    """Upstreams of the metering proxy (`tollmeter serve`) beside those that it knows."""

    # Notify
    notify_routes: str = ""
    """The routes file of `tollmeter notify`; with it `tollmeter up` runs notify, too."""

    verdict_ok: Word = "OK"
    verdict_alert: Word = "ALERT"
    """How the last line of the budget report begins."""

    # Server
    org: Annotated[str, Field(min_length=1, max_length=256)] = "default"
    """Organisation of the keys that `tollmeter serve` takes from its environment."""

    # Producer
    spool_dir: str = ""
    pepper: SecretStr = SecretStr("")
    """Key under which provider keys become ids (`producers.privacy.key_id`); the same in every service."""
    data_dir: Path = Path(".tollmeter")

    # Server
    secret: SecretStr = SecretStr("")
    """Under which keys of the server are hashed; "" = the file that `up` has made in the data folder."""

    _no_line: str = PrivateAttr("")

    def without_line(self, why: str) -> "Settings":
        """Return these settings for where it is not known which line is meant: using one raises `SettingsError`."""
        copy = self.model_copy()
        copy._no_line = why
        return copy

    def require_line(self) -> None:
        """Raise `SettingsError` when it is not known where Kafka and ClickHouse are."""
        if self._no_line:
            raise SettingsError(self._no_line)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Build from TOLLMETER_* variables. Raises `SettingsError` naming every unknown or wrong one."""
        values = {
            name.removeprefix(PREFIX).lower(): value
            for name, value in environment.items()
            if name.startswith(PREFIX) and name not in NOT_SETTINGS and value != ""
        }
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = [
                f"{PREFIX}{'_'.join(map(str, problem['loc'])).upper()}: "
                + ("no such setting" if problem["type"] == "extra_forbidden" else problem["msg"])
                for problem in error.errors(include_input=False, include_url=False)
            ]
            raise SettingsError("; ".join(lines)) from None

    def topic(self, name: str) -> str:
        """Return the full name of one of the topics of `schemas.topics`."""
        return self.topic_prefix + name

    def group(self, stage: str) -> str:
        """Return the consumer group of a stage."""
        return f"{self.group_prefix}-{stage}"

    def kafka_options(self) -> dict[str, Any]:
        """Return the connection arguments that every aiokafka client takes. Raises `SettingsError`: see above."""
        self.require_line()
        options: dict[str, Any] = {"bootstrap_servers": self.kafka, "security_protocol": self.kafka_security}
        if self.kafka_security.startswith("SASL"):
            options["sasl_mechanism"] = self.kafka_sasl
            options["sasl_plain_username"] = self.kafka_user
            options["sasl_plain_password"] = self.kafka_password.get_secret_value()
        if self.kafka_security.endswith("SSL"):
            options["ssl_context"] = ssl.create_default_context(cafile=self.kafka_ca_file or None)
        return options


HEALTH_PORTS = {"price": 9471, "ledger": 9472, "watch": 9473}
"""Where a worker answers health checks unless told otherwise."""

NOT_SETTINGS = frozenset(
    {
        "TOLLMETER_TRACES",
        "TOLLMETER_READY_FILE",
        "TOLLMETER_HEALTH_FILE",
        "TOLLMETER_RUN_FIELDS",
        "TOLLMETER_READ_KEY",
    }
)
"""Variables with our prefix that are no settings: the trace folder of the tests, the files that a worker writes when it
is ready and when it answers health checks, which belong to one process and not to the line, and the key of a reader."""
