"""plugin.json: what an app says of itself.

The format is PostHog's (`name`, `description`, `url`, `main`, `config`, `publicJobs`, `posthogVersion`, `stateless`),
plus `egress` (the hosts that the app talks to) and `limits`. Apps of that ecosystem carry keys that mean nothing here
(`lib`, `metrics`, `author`, `$schema`, ...), so an unknown key is ignored, unless it is almost a known one: then it is
a typing error, and refused with the key that was meant. The same holds for the keys of a config field.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from plugin_server.model.project import Limits
from plugin_server.registry.problems import Problems, key_path, nearest, unknown_key

FieldType = Literal["string", "attachment", "choice", "json", "boolean", "dictionary"]
JobFieldType = Literal["string", "boolean", "json", "number", "date", "daterange"]

_TYPO_CUTOFF = 0.8
_FOREIGN_KEYS = frozenset({"lib", "metrics"})
_MODEL = ConfigDict(
    frozen=True, strict=True, extra="ignore", populate_by_name=True, use_attribute_docstrings=True, allow_inf_nan=False
)
_HOST = re.compile(
    r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*(:\d{1,5})?"
)
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


class ConfigField(BaseModel):
    """One entry of `config`. An entry without `key` is text for the form and holds no value."""

    model_config = _MODEL

    key: str | None = Field(None, min_length=1, examples=['"apiKey"'])
    name: str | None = None
    type: FieldType = Field("string", examples=['"string"'])
    choices: tuple[str, ...] = Field((), strict=False, examples=['["Yes", "No"]'])
    """For the type `choice` only."""
    default: Any = None
    """Given to the app when the install has no value. An empty text is no default, except for the type `string`."""
    hint: str | None = None
    markdown: str | None = None
    required: bool = Field(default=False, examples=["true"])
    secret: bool = Field(default=False, examples=["true"])
    """The value is never shown again."""
    order: float | None = None
    required_if: Any = None
    visible_if: Any = None
    templating: bool | None = None

    @model_validator(mode="after")
    def _choices_belong_to_choice(self) -> ConfigField:
        if self.type == "choice" and not self.choices:
            raise ValueError('is of type choice but has no choices: write `"choices": ["Yes", "No"]`')
        return self


class JobField(BaseModel):
    model_config = _MODEL

    type: JobFieldType = Field(examples=['"string"'])
    title: str | None = None
    required: bool = False
    default: Any = None
    staff_only: bool = False


class PublicJob(BaseModel):
    """A job that a person may start, with the fields of its form."""

    model_config = _MODEL

    payload: dict[str, JobField] = Field({}, examples=['{"since": {"type": "date"}}'])


class Manifest(BaseModel):
    """A plugin.json that was found good. `App.manifest` is its `model_dump(by_alias=True)`."""

    model_config = _MODEL

    name: str = Field(min_length=1, max_length=200, examples=['"URL cleaner"'])
    description: str = ""
    url: str = ""
    main: str = Field("main.py", examples=['"main.py"'])
    """The file with the app's code, inside its folder."""
    config: tuple[ConfigField, ...] = Field((), strict=False, examples=['[{"key": "apiKey", "type": "string"}]'])
    public_jobs: dict[str, PublicJob] = Field({}, alias="publicJobs", examples=['{"import": {"payload": {}}}'])
    posthog_version: str | None = Field(None, alias="posthogVersion", examples=['">= 1.25.0"'])
    """Kept for those who read it; any version is accepted."""
    stateless: bool = False
    """Kept for those who read it; changes nothing."""
    egress: tuple[str, ...] | None = Field(None, strict=False, examples=['["api.example.com", "{host}"]'])
    """Hosts that the app may talk to; `{key}` stands for the host in that config value. None: any public host."""
    limits: dict[str, float] = Field({}, examples=['{"hook_seconds": 60}'])
    """Those of the project's limits that this app would like otherwise."""

    @field_validator("config", mode="before")
    @classmethod
    def _legacy_config(cls, value: object) -> object:
        """The form of 2020: an object of key to field."""
        if isinstance(value, dict):
            return [{"key": key, **field} if isinstance(field, dict) else field for key, field in value.items()]
        return value

    @field_validator("main")
    @classmethod
    def _main_is_inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if not value or "\\" in value or "\0" in value or path.is_absolute() or ".." in path.parts or not path.name:
            raise ValueError("must be a file inside the app's folder, with `/` between folders")
        if path.suffix != ".py":
            raise ValueError("must be a Python file (.py): apps are written in Python here")
        return str(path)

    @field_validator("limits")
    @classmethod
    def _limits_exist(cls, value: dict[str, float]) -> dict[str, float]:
        for name in value:
            if name not in Limits.model_fields:
                raise ValueError(f"{name} {unknown_key(name, list(Limits.model_fields))}".rstrip("."))
        try:
            checked = Limits.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{key_path(first['loc'])} {first['msg'].removeprefix('Input ')}") from None
        return {name: getattr(checked, name) for name in value}

    @model_validator(mode="after")
    def _names_are_declared_once(self) -> Manifest:
        keys = [field.key for field in self.config if field.key is not None]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"config declares the key `{key}` twice: rename one of them")
        for host in self.egress or ():
            for key in _PLACEHOLDER.findall(host):
                if key not in keys:
                    raise ValueError(
                        f"egress names `{{{key}}}`, which config does not declare: declare it or remove it"
                    )
            if not _HOST.fullmatch(_PLACEHOLDER.sub("x", host)):
                raise ValueError(f"egress has {host!r}, which is no host: write it without scheme and path")
        return self

    @property
    def fields(self) -> dict[str, ConfigField]:
        """The fields that hold values, by key."""
        return {field.key: field for field in self.config if field.key is not None}


def parse_manifest(raw: bytes, file: str) -> tuple[Manifest, str]:
    """The manifest, and its canonical JSON (sorted keys, no spaces, ignored keys included) to be hashed.

    `file` is how messages call it. Raises ConfigurationError with every mistake in it, a syntax error with its line.
    """
    problems = Problems(file)
    document = _decode(raw, problems)
    if isinstance(document, dict):
        _refuse_typos(document, problems)
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        problems.add_invalid(error, Manifest)
    problems.raise_if_any()
    return manifest, json.dumps(document, sort_keys=True, separators=(",", ":"))


def _decode(raw: bytes, problems: Problems) -> object:
    document: object = None
    try:
        document = json.loads(raw.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        problems.add(f"line {error.lineno}, column {error.colno}", f"is not valid JSON: {error.msg}.")
    except UnicodeDecodeError:
        problems.add("", "is not UTF-8 text. Save it as UTF-8.")
    except (RecursionError, ValueError):
        problems.add("", "is not JSON that can be read: it nests too deep or has too long a number.")
    problems.raise_if_any()
    if not isinstance(document, dict):
        problems.add("", 'must hold one JSON object, for example {"name": "My app", "main": "main.py"}.')
        problems.raise_if_any()
    return document


def _refuse_typos(document: dict[str, Any], problems: Problems) -> None:
    _refuse_typos_in(document, Manifest, "", problems)
    config = document.get("config")
    fields = enumerate(config) if isinstance(config, list) else ()
    for index, field in fields:
        if isinstance(field, dict):
            _refuse_typos_in(field, ConfigField, f"config[{index}].", problems)


def _refuse_typos_in(document: dict[str, Any], model: type[BaseModel], where: str, problems: Problems) -> None:
    known = [field.alias or name for name, field in model.model_fields.items()]
    for key in document:
        meant = nearest(key, known, _TYPO_CUTOFF)
        if key not in known and key not in _FOREIGN_KEYS and meant is not None:
            problems.add(where + key, f"is not a known key. Write `{meant}` instead.")
