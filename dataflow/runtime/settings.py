"""Every setting of the job, read from the environment (``VISITS_*``) and from ``.env``.

The engine keeps its own names (``BYTEWAX_*``); docs/settings.md lists all of ours.
"""

import difflib
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, create_model, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dataflow.clickstream.inputs import EVENTS, PURCHASES, InputTopics, default_inputs, mapped_inputs
from dataflow.clickstream.kinds import DEFAULT_KINDS, Kinds
from dataflow.clickstream.mapping import spec as mapping_file
from dataflow.clickstream.mapping.spec import Mapping
from dataflow.clickstream.outputs import OUTPUTS, OutputSpec
from dataflow.clickstream.rules import Rules
from dataflow.clickstream.serde import ADDED, AddedFields
from dataflow.clickstream.suspicion import SUSPICION_RULES
from dataflow.streaming.errors import UserError
from dataflow.streaming.time import SECOND

PREFIX = "VISITS_"
KAFKA_PREFIX = PREFIX + "KAFKA_"
ENV_FILE = ".env"

Seconds = Annotated[float, Field(allow_inf_nan=False, le=1e9)]  # thirty years
TopicName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]


class Settings(BaseSettings):
    """The settings of a job. Durations are in seconds of event time."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=ENV_FILE, extra="ignore", frozen=True)

    brokers: str = Field(
        "localhost:19092,localhost:19091,localhost:19090",
        min_length=1,
        description="Kafka bootstrap servers, separated by commas",
    )
    session_gap: Seconds = Field(20, gt=0, description="longest pause between two events of one session")
    match_window: Seconds = Field(
        5,
        ge=0,
        description="longest distance in time between a purchase event and its purchase row, before or after; if it is more "
        "than half the session gap, sessions close later",
    )
    allowed_lateness: Seconds = Field(
        5, ge=0, description="a row is late if its time is more than this below the highest time of its partition"
    )
    outage_grace: Seconds = Field(
        20,
        ge=0,
        description="after a start or a broker outage, idle partitions hold the watermark for this long (wall clock), because "
        "producers may still have to deliver old rows (librdkafka waits up to 15 s before it retries)",
    )
    drain_timeout: Seconds = Field(
        20,
        gt=0,
        description="how long a stop (SIGTERM, Ctrl-C) may take to finish what has been read, seconds of wall clock; after that "
        "the job ends without a last snapshot, and the next start replays from the one before",
    )
    shards: int = Field(
        8,
        ge=1,
        le=1024,
        description="number of groups that users are divided into; more workers than this have nothing to do",
    )
    start: Literal["earliest", "latest"] = Field(
        "earliest",
        description="`earliest` or `latest`: where to start when there is nothing to resume from; `latest` reads rows that "
        "were written after the first start with it under this `VISITS_GROUP`",
    )
    stop_at_end: bool = Field(
        False, description="1: read to the current end of the topics, close every session and stop"
    )
    partitioner: Literal["crc32", "murmur2"] = Field(
        "crc32",
        description="`crc32` or `murmur2`: hash that maps keys to output partitions; librdkafka's default or Java's",
    )
    group: str = Field(
        "visits",
        pattern=r"\S",
        description="name of the job: its identity in the output topics, and its consumer group (for lag monitors only)",
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="`text`, `json` (one object per line) or `auto`: text on a terminal, otherwise JSON"
    )
    log_level: Literal["info", "warning", "error"] = Field(
        "info", description="lowest level that is logged: `info`, `warning` or `error`"
    )
    health_port: int = Field(0, ge=0, le=65_535, description="port of the health probes `/live` and `/ready`; 0: off")
    page_port: int = Field(0, ge=0, le=65_535, description="port of the live page; 0: off")
    page_address: str = Field(
        "127.0.0.1",
        min_length=1,
        description="address that the live page listens on; `0.0.0.0`: every interface, without a password",
    )
    mapping: str = Field(
        "",
        description="file that says where the fields of your messages are, or the name of a preset; see docs/mapping.md",
    )
    topic_user_events: TopicName = Field("user-events", description="input: clicks")
    topic_purchases: TopicName = Field("purchases", description="input: amounts")
    kafka_file: Path | None = Field(
        None, description="file of librdkafka properties, one `name=value` per line (TLS, SASL)"
    )
    kafka: dict[str, SecretStr] = Field(
        {}, description="any librdkafka property, with underscores for dots: `VISITS_KAFKA_SECURITY_PROTOCOL=SASL_SSL`"
    )

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The settings of registered rules and outputs, see below."""

    @property
    def mapping_file(self) -> Mapping | None:
        """The mapping; None: the default shape."""
        return self._mapped()[0]

    @property
    def input_topics(self) -> InputTopics:
        """The topics that are read, and how their messages become rows."""
        return self._mapped()[1]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the topics that are read."""
        return self.input_topics.names

    def _mapped(self) -> tuple[Mapping | None, InputTopics]:
        given = self.model_fields_set
        events = self.topic_user_events if "topic_user_events" in given else ""
        purchases = self.topic_purchases if "topic_purchases" in given else ""
        return _mapped(self.mapping, events, purchases)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the topics that are written, in the order of `OUTPUTS`."""
        return tuple(map(self.topic, OUTPUTS))

    @property
    def optional_outputs(self) -> tuple[str, ...]:
        """Names of those that may be missing: without them the job runs, and writes the others."""
        return tuple(self.topic(spec) for spec in OUTPUTS if spec.optional)

    def topic(self, spec: OutputSpec) -> str:
        """Name of an output's topic."""
        name: str = getattr(self, f"topic_{spec.setting}")
        return name

    @property
    def thresholds(self) -> dict[str, int]:
        """The thresholds of the suspicion rules, by name."""
        return {rule.threshold.name: getattr(self, rule.threshold.name) for rule in SUSPICION_RULES}

    @property
    def rules(self) -> Rules:
        """The numbers in the rules, in microseconds."""
        mapping = self.mapping_file
        return Rules(
            gap=round(self.session_gap * SECOND),
            window=round(self.match_window * SECOND),
            lateness=round(self.allowed_lateness * SECOND),
            shards=self.shards,
            thresholds=self.thresholds,
            kinds=Kinds(mapping.page_views, mapping.purchase_kinds) if mapping is not None else DEFAULT_KINDS,
            added=AddedFields(*msgspec.structs.astuple(mapping.output)) if mapping is not None else ADDED,
        )

    @property
    def client(self) -> dict[str, str]:
        """librdkafka properties that every client of the job starts from, secrets in the clear."""
        passed = {name: secret.get_secret_value() for name, secret in self.kafka.items()}
        return {"bootstrap.servers": self.brokers, **passed}

    @field_validator("kafka")
    @classmethod
    def _no_transactions(cls, properties: dict[str, SecretStr]) -> dict[str, SecretStr]:
        if "transactional.id" in properties:
            raise ValueError("transactional.id: the job is exactly once without transactions; leave it out")
        return properties

    @field_validator("kafka_file")
    @classmethod
    def _file_exists(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError("there is no such file")
        return path

    @model_validator(mode="after")
    def _topics_differ(self) -> "Settings":
        names = self.inputs + self.outputs
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"topic {name!r} is named twice; the job would read its own output or mix two streams")
        return self

    @classmethod
    def settings_customise_sources(  # type: ignore[override]
        cls, settings_cls: type[BaseSettings], **sources: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        ordered = sources["init_settings"], sources["env_settings"], sources["dotenv_settings"]
        return *ordered[:1], _KafkaProperties(settings_cls), *ordered[1:], _MappingRules(settings_cls)


if not TYPE_CHECKING:  # each registered suspicion rule and output brings a setting
    Settings = create_model(
        "Settings",
        __base__=Settings,
        __module__=__name__,
        **{
            rule.threshold.name: (
                int,
                Field(rule.threshold.default, ge=rule.threshold.minimum, description=rule.threshold.description),
            )
            for rule in SUSPICION_RULES
        },
        **{f"topic_{spec.setting}": (TopicName, Field(spec.name, description=spec.description)) for spec in OUTPUTS},
    )


@lru_cache
def _mapped(name: str, events: str, purchases: str) -> tuple[Mapping | None, InputTopics]:
    """A mapping and its topics; names of topics that are given win over those in the file."""
    if not name:
        return None, default_inputs(events or EVENTS, purchases or PURCHASES)
    mapping = mapping_file.load(name)
    if events:
        mapping = msgspec.structs.replace(mapping, events=msgspec.structs.replace(mapping.events, topics=events))
    if purchases and mapping.purchases is not None:
        renamed = msgspec.structs.replace(mapping.purchases, topics=purchases)
        mapping = msgspec.structs.replace(mapping, purchases=renamed)
    return mapping, mapped_inputs(mapping)


class _MappingRules(PydanticBaseSettingsSource):
    """The numbers of the rules that a mapping holds; the environment wins."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False  # several fields, read in __call__

    def __call__(self) -> dict[str, Any]:
        name = self.current_state.get("mapping")
        return dict(mapping_file.load(name).rules) if name else {}


class _KafkaProperties(PydanticBaseSettingsSource):
    """Gathers ``VISITS_KAFKA_*`` and the lines of ``VISITS_KAFKA_FILE``; the environment wins."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False  # one field only, made in __call__

    def __call__(self) -> dict[str, Any]:
        given = variables()
        properties: dict[str, str] = {}
        file = given.get(KAFKA_PREFIX + "FILE")
        if file and Path(file).is_file():
            properties |= {k.strip(): (v or "").strip() for k, v in _values_in(file, interpolate=False).items()}
        for name, value in given.items():
            if name.startswith(KAFKA_PREFIX) and name != KAFKA_PREFIX + "FILE":
                properties[name.removeprefix(KAFKA_PREFIX).lower().replace("_", ".")] = value
        return {"kafka": properties} if properties else {}


def load() -> Settings:
    """Reads the settings from the environment and from `.env`.

    Raises:
        UserError: a value is wrong or a name unknown; its text is one line that says which and why.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in variables():
        if name.startswith(PREFIX) and name not in known and not name.startswith(KAFKA_PREFIX):
            near = difflib.get_close_matches(
                name.removeprefix(PREFIX), sorted(each.removeprefix(PREFIX) for each in known), n=1
            )
            hint = f"; did you mean {PREFIX}{near[0]}?" if near else "; docs/settings.md lists the settings"
            raise UserError(f"there is no setting {name}{hint}")
    try:
        return Settings()
    except ValidationError as error:
        problems = []
        for problem in error.errors(include_url=False, include_context=False):
            name = PREFIX + str(problem["loc"][0]).upper() + ": " if problem["loc"] else ""
            problems.append(name + problem["msg"].removeprefix("Value error, "))
        raise UserError("wrong setting: " + "; ".join(problems)) from None


def variables() -> dict[str, str]:
    """The variables of the environment and of `.env`, names in capitals; the environment wins."""
    file = {name: value or "" for name, value in _values_in(ENV_FILE).items()}
    return {name.upper(): value for name, value in {**file, **os.environ}.items()}


def _values_in(file: str, interpolate: bool = True) -> dict[str, str | None]:
    try:
        return dotenv_values(file, interpolate=interpolate)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None


def log_options() -> tuple[str, str]:
    """Format and level of the log, unchecked: logging starts before the settings are read."""
    try:
        given = variables()
    except UserError:  # told when the settings are read
        return "auto", "info"
    return given.get(PREFIX + "LOG_FORMAT", "auto"), given.get(PREFIX + "LOG_LEVEL", "info")
