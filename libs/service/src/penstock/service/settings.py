"""The configuration: `PENSTOCK_*` variables and one YAML file, validated whole."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping, Set
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import yaml
from penstock.service.profiles import Profile
from penstock.service.renamed_keys import RENAMED_KEY, explain_renamed_keys, line_of
from penstock.service.service_tokens import BadTokens, SharedToken, TokenFile, Tokens
from penstock.service.tls_files import BadTlsFiles, TlsFiles, TlsSource
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

log = logging.getLogger(__name__)

SECTIONS = (
    "keys",
    "prices",
    "limits",
    "routes",
    "cache",
    "batching",
    "prompts",
    "instances",
    "upstreams",
    "scaling",
)
"""Every top-level name the YAML file may hold; a service validates the ones it uses and ignores the
others.
"""


MAX_VALUES = 200_000
"""In one configuration file."""


class BadConfig(Exception):
    """The configuration cannot be used.

    `problems` holds one line for each bad key, all of them at once.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Section(BaseModel):
    """A part of the YAML file: frozen, and an unknown key is an error rather than a setting that
    silently does nothing.

    A section that renames a key lists it in `renamed_keys`, new name by old name: the old name is
    then refused with a message that says the new one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    renamed_keys: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_renamed_keys(cls, data: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(data)
        except ValidationError as error:
            raise explain_renamed_keys(error, cls.renamed_keys) or error from None


class ServiceSettings(BaseSettings):
    """What every service is told by its environment.

    A service adds its own fields with its own prefix.
    """

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_", frozen=True, extra="ignore")

    listen: str = Field("127.0.0.1:0", description="address to serve on: host:port or unix:/path")
    advertise: str = Field(
        "", description="address that others reach this service by; empty: the listen address"
    )
    cell: str = Field(
        "",
        description="name of this cell, where several share the addresses of their services; "
        "empty: one alone",
    )
    cell_address: str = Field(
        "",
        description="this cell's own address, at which other cells reach its batcher: host:port or "
        "unix:/path; empty: none",
    )
    profile: Profile = Field(
        "development", description="development: reflection on, every trace recorded"
    )
    config_file: Path | None = Field(
        None, description="YAML file of keys, models, prices, limits and routes"
    )
    ledger_url: str = Field(
        "",
        description="store of what must not be lost: budgets, leases, registry, runs, jobs, the "
        "scaler's history; empty: none",
    )
    cache_url: str = Field("", description="store of bounded size for cached answers; empty: none")
    otlp_endpoint: str = Field(
        "",
        description="host:port that takes OTLP over gRPC; empty: telemetry is counted and dropped",
    )
    internal_token: str = Field(
        "", repr=False, description="secret that lets services call each other's internal ports"
    )
    allow_plaintext: bool = Field(
        False, description="true: the production profile starts without TLS"
    )
    allow_shared_token: bool = Field(
        False, description="true: the production profile starts with one token for all services"
    )
    tls_dir: Path | None = Field(
        None,
        description="folder with tls.crt, tls.key and ca.crt, as cert-manager fills it: TLS at "
        "every port, mutual TLS between services; read again when it changes",
    )
    tls_cert: Path | None = Field(None, description="certificate chain, instead of tls.crt")
    tls_key: Path | None = Field(None, description="private key, instead of tls.key")
    tls_ca: Path | None = Field(
        None,
        description="authorities that callers and callees must have their certificates from, "
        "instead of ca.crt",
    )
    service_tokens_file: Path | None = Field(
        None,
        description="YAML file of the secrets by which services without certificates know each "
        "other; read again when it changes",
    )
    home: Path = Field(Path(".penstock"), description="folder of models and data")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe line that is logged"
    )
    drain_s: float = Field(
        0.2,
        ge=0,
        description="seconds between saying NOT_SERVING and refusing new calls at shutdown",
    )
    grace_s: float = Field(
        10.0, ge=0, description="seconds that calls in flight get to finish at shutdown"
    )
    connection_age_s: float = Field(
        1_800.0,
        ge=0,
        description="seconds after which a gRPC connection takes no new calls and its client opens "
        "another, so that load reaches new processes; item streams move by themselves; 0: never",
    )

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        files = self.tls_files()
        if files is None:
            return self
        if files.certificate is None or files.key is None or files.authorities is None:
            raise ValueError(
                "PENSTOCK_TLS_CERT, PENSTOCK_TLS_KEY and PENSTOCK_TLS_CA belong together; set all "
                "of them, or PENSTOCK_TLS_DIR"
            )
        return self

    def missing_in_production(self) -> list[str]:
        """A line for each protection of this kind of service that the production profile asks for
        and that is missing, with the variable that allows it.
        """
        return []

    def tls_files(self) -> TlsFiles | None:
        """Where certificate, key and authorities are; None for plaintext."""
        folder = TlsFiles.of_folder(self.tls_dir) if self.tls_dir is not None else TlsFiles()
        files = TlsFiles(
            self.tls_cert or folder.certificate,
            self.tls_key or folder.key,
            self.tls_ca or folder.authorities,
        )
        return files if files.paths else None

    @cached_property
    def tokens(self) -> Tokens:
        """The secrets of the tokens file, or the one that all services share.

        Raises:
            BadConfig: the file cannot be used.
        """
        if self.service_tokens_file is None:
            return SharedToken(self.internal_token)
        try:
            return TokenFile(self.service_tokens_file)
        except BadTokens as error:
            raise BadConfig([f"PENSTOCK_SERVICE_TOKENS_FILE: {error}"]) from None

    @cached_property
    def tls(self) -> TlsSource | None:
        """The material of `tls_files`, which all ports and connections of the service share.

        Raises:
            BadConfig: the files cannot be used.
        """
        files = self.tls_files()
        try:
            return TlsSource(files) if files is not None else None
        except BadTlsFiles as error:
            raise BadConfig([f"PENSTOCK_TLS_DIR: {error}"]) from None


CommaList = Annotated[tuple[str, ...], NoDecode]
"""A list in one variable, separated by commas; the field's validator is `split_commas`."""


def split_commas(value: object) -> object:
    """Turn `a, b` into ("a", "b"); other values pass to pydantic as they are."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


S = TypeVar("S", bound=BaseSettings)
M = TypeVar("M", bound=BaseModel)


def load_settings(kind: type[S], service: str = "", **overrides: Any) -> S:
    """Read settings from the environment.

    Args:
        kind: the settings class.
        service: whose settings they are: `PENSTOCK_<SERVICE>_X` then comes before `PENSTOCK_X`, so
            that several services can share an environment.
        overrides: values that come before both.

    Raises:
        BadConfig: names every bad variable.
    """
    own = own_variables(kind, service)
    values = {field: os.environ[name] for field, name in own.items() if name in os.environ}
    try:
        return kind(**(values | overrides))
    except ValidationError as error:
        problems = [dict(item) for item in error.errors()]
    raise BadConfig([_variable_problem(kind, item, own.keys() & values, own) for item in problems])


def own_variables(kind: type[BaseSettings], service: str) -> dict[str, str]:
    """The variables `PENSTOCK_<SERVICE>_<FIELD>` of a service, by field; none without a name."""
    if not service:
        return {}
    prefix = f"{kind.model_config.get('env_prefix', '')}{service.replace('-', '_')}_"
    return {field: f"{prefix}{field}".upper() for field in kind.model_fields}


def _variable_problem(
    kind: type[BaseSettings], item: Mapping[str, Any], own: Set[str], own_names: Mapping[str, str]
) -> str:
    field = "_".join(str(part) for part in item["loc"])
    if field in own:
        return f"{own_names[field]}: {item['msg']}"
    prefix = kind.model_config.get("env_prefix", "")
    return f"{(prefix + field).upper()}: {item['msg']}"


def load_section(path: Path | None, name: str, kind: type[M]) -> M:
    """Read one section of the YAML file; an absent file or section gives the section's defaults.

    Raises:
        BadConfig: names every bad key of the section, or says why the file cannot be read.
    """
    data = {} if path is None else read_file(path).get(name) or {}
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise BadConfig([_key_problem(path, name, dict(item)) for item in error.errors()]) from None


def read_file(path: Path) -> dict[str, Any]:
    """Read the YAML file into its sections.

    Raises:
        BadConfig: the file is missing, is not YAML, or has an unknown section.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfig([f"{path}: cannot be read ({error.strerror})"]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadConfig([f"{path}: is not YAML ({' '.join(str(error).split())})"]) from None
    if data is None:
        return {}
    if written_out(data) > MAX_VALUES:
        raise BadConfig([f"{path}: its aliases stand for more than {MAX_VALUES} values"])
    if not isinstance(data, dict):
        raise BadConfig(
            [f"{path}: must hold sections ({', '.join(SECTIONS)}), not a {type(data).__name__}"]
        )
    unknown = [
        f"{path}: {key}: unknown section; known are {', '.join(SECTIONS)}"
        for key in data
        if key not in SECTIONS
    ]
    if unknown:
        raise BadConfig(unknown)
    return data


def written_out(data: object, counted: dict[int, int] | None = None) -> int:
    """How many values YAML data would have without its aliases, which a few lines can make stand
    for billions; counting takes time for what is written only.
    """
    counted = {} if counted is None else counted
    if not isinstance(data, (dict, list)):
        return 1
    if id(data) not in counted:
        counted[id(data)] = MAX_VALUES  # an alias of what it stands in has no end
        parts = [*data, *data.values()] if isinstance(data, dict) else data
        counted[id(data)] = 1 + sum(written_out(part, counted) for part in parts)
    return counted[id(data)]


def _key_problem(path: Path | None, name: str, item: Mapping[str, Any]) -> str:
    key = ".".join([name, *(str(part) for part in item["loc"])])
    line = ""
    if path is not None and item["type"] == RENAMED_KEY:
        line = f" (line {line_of(path, [name, *item['loc']])})"
    return f"{path}: {key}: {item['msg']}{line}"


def reload_on_sighup(prepare: Callable[[], Callable[[], None]]) -> None:
    """On SIGHUP, call `prepare` and then what it returns, from inside the running loop.

    `prepare` reads and checks the file, and changes nothing. A bad new file is refused in one line
    that names every problem, and the old values stay.
    """

    def on_sighup() -> None:
        try:
            apply = prepare()
        except BadConfig as error:
            log.error("configuration refused, the old one stays: %s", "; ".join(error.problems))
        else:
            apply()
            log.info("configuration read again")

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_sighup)


def describe(kind: type[BaseSettings]) -> list[tuple[str, str, str]]:
    """Rows of (variable, default, meaning) for --help."""
    prefix = kind.model_config.get("env_prefix", "")
    rows = []
    for name, field in kind.model_fields.items():
        default = ""
        if not field.is_required():
            default = str(field.get_default(call_default_factory=True, validated_data={}))
        rows.append(((prefix + name).upper(), default, field.description or ""))
    return rows


def environment(settings: ServiceSettings, **changes: str) -> dict[str, str]:
    """The environment for a child service: this process's own, with `PENSTOCK_` names set from
    `changes`.
    """
    names = {f"PENSTOCK_{key}".upper(): value for key, value in changes.items()}
    return {**os.environ, "PENSTOCK_HOME": str(settings.home), **names}
