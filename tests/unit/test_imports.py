"""Imports point one way: model ← ports ← stages ← cli; the sandbox knows nobody (docs/decisions, CONTRIBUTING.md).

The rules are read off the source, so an import inside a function or under TYPE_CHECKING counts as well: what a module
depends on does not change with the place where it says so.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("plugin_server", "sandbox")

MODEL = "plugin_server.model"
METRICS = "plugin_server.metrics"
EVENTLOG_PORT = "plugin_server.eventlog.port"
# What passes between host and child, the JSON codec of both, and the rules for an event, which the host applies itself
# where a project has no app. They import nothing but the standard library, orjson and each other, and hold no state.
# Everything else in `sandbox` runs in the child only.
SANDBOX_BORDER = ("sandbox.wire", "sandbox.codec", "sandbox.event")


@dataclass(frozen=True)
class Rule:
    """What a folder (or a module at the top) may import of ours, besides itself."""

    part: str
    may_import: tuple[str, ...]
    advice: str


STAGE_MAY = (MODEL, METRICS, EVENTLOG_PORT, *SANDBOX_BORDER)
STAGE_ADVICE = (
    "Let the stage state what it needs as a Protocol of its own, and hand it in from plugin_server/cli/service.py."
)

WORKS = (
    "plugin_server.lanes",
    "plugin_server.outputs",
    "plugin_server.runtime",
    "plugin_server.host_api",
    "plugin_server.database",
)


def stage(name: str, *also: str) -> Rule:
    return Rule(f"plugin_server.{name}", (*STAGE_MAY, *also), STAGE_ADVICE)


RULES = (
    # The child is confined and untrusted: host code in it would be host code in an attacker's reach.
    Rule("sandbox", (), "The child gets what it needs in a message (sandbox/wire.py), never by importing the host."),
    # Frozen values and pure decisions, which everybody may import because they import nobody.
    Rule(MODEL, (), "Values know no I/O. Move what needs it to the stage that does it."),
    # Declarations only; in one file so that the page of all metrics is generated from it.
    Rule(METRICS, (MODEL,), "Declare the metric here and count in the stage."),
    # Every knob. Stages get numbers, not settings, so that they can be tested and reused without any.
    Rule(
        "plugin_server.settings", (MODEL,), "Settings are read by plugin_server/cli and handed on as plain arguments."
    ),
    # Tables and the engine: a port, below all that stores something.
    Rule(
        "plugin_server.database", (MODEL, METRICS), "The database knows no stage. Put the query where its meaning is."
    ),
    # The log is a port too; its embedded implementation lives in the same SQLite file as the database.
    Rule(
        "plugin_server.eventlog",
        (MODEL, METRICS, "plugin_server.database"),
        "The log carries bytes. Decode them in a stage.",
    ),
    # The stages, in the order of the data flow. One never imports another, for then neither can be read or tested alone.
    stage("capture"),
    # What a stage does on its lanes is the stage's; how a lane lives, reads and commits is the same for all.
    Rule(
        "plugin_server.lanes",
        (*STAGE_MAY, "plugin_server.database", "plugin_server.host_api.commit"),
        "A lane knows no stage: what is done with its records is a Processor of the stage's.",
    ),
    # The stages on lanes are where the sandbox's answers and the apps' effects become outputs.
    stage("ingestion", *WORKS),
    stage("delivery", *WORKS),
    # Jobs and schedules have no lane, but the same sandboxes and effects.
    stage("background", *WORKS),
    stage("runtime"),
    # What the host does for apps: its requests come as the sandbox's checked answers, its effects leave as outputs.
    stage(
        "host_api",
        "plugin_server.outputs",
        "plugin_server.database",
        "plugin_server.eventlog.headers_codec",
        "plugin_server.runtime.replies",
        "plugin_server.runtime.work",
        "plugin_server.registry.manifest",
    ),
    stage("registry"),
    stage("outputs"),
    stage("admin", "plugin_server.database"),
    # It reads apps and runs nothing, for authors and (later) for a server; so no sandbox: what refuses to compile it is told.
    Rule(
        "plugin_server.app_check",
        (MODEL, "plugin_server.registry.manifest", "plugin_server.registry.problems"),
        "The check is a pure function of an app's source and manifest. Compile in plugin_server/cli or in the sandbox.",
    ),
    # The harness runs the real sandbox with fakes around it: a composition root for authors. It has no log and no database.
    Rule(
        "plugin_server.testing",
        (
            MODEL,
            *SANDBOX_BORDER,
            "plugin_server.capture",
            "plugin_server.delivery",
            "plugin_server.runtime",
            "plugin_server.host_api",
            "plugin_server.registry",
            "plugin_server.outputs",
        ),
        "The harness works without log, database and settings. Give it a fake of what it lacks.",
    ),
    # The one place that knows every part; nobody knows it.
    Rule("plugin_server.__main__", ("plugin_server.cli",), "It only calls the command line."),
    Rule("plugin_server.cli", OURS, "Unreachable: cli may import everything."),
)


@dataclass(frozen=True)
class Import:
    path: Path
    line: int
    importer: str
    imported: str


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_within(module: str, part: str) -> bool:
    return module == part or module.startswith(f"{part}.")


def modules_of(root: Path) -> dict[str, Path]:
    return {module_name(path, root): path for name in OURS for path in sorted((root / name).rglob("*.py"))}


@functools.cache
def imports_of_ours(root: Path) -> tuple[Import, ...]:
    """Each import of a module of ours. `from package import name` counts as the module `package.name` where there is one."""
    return tuple(_imports_of_ours(root))


def _imports_of_ours(root: Path) -> Iterator[Import]:
    modules = modules_of(root)
    for importer, path in modules.items():
        package = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
            for imported in imported_names(node, package, modules):
                if imported.partition(".")[0] in OURS:
                    yield Import(path.relative_to(root), node.lineno, importer, imported)  # type: ignore[attr-defined]


def imported_names(node: ast.AST, package: str, modules: dict[str, Path]) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            base = module or ""
            if level:
                above = package.split(".")[: len(package.split(".")) - level + 1]
                base = ".".join([*above, module] if module else above)
            return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base for alias in names]
        # import_module("plugin_server.x") and __import__("plugin_server.x") depend on it just as much.
        case ast.Call(
            func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"), args=[first, *_]
        ):
            return [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
        case _:
            return []


def rule_for(module: str) -> Rule | None:
    return next((rule for rule in RULES if is_within(module, rule.part)), None)


def broken_rules(root: Path) -> list[str]:
    problems = []
    for found in imports_of_ours(root):
        rule = rule_for(found.importer)
        if rule is None or any(is_within(found.imported, part) for part in (rule.part, *rule.may_import)):
            continue
        # `import plugin_server` alone reaches nothing but its version.
        if found.imported == "plugin_server" and rule.part != "sandbox":
            continue
        problems.append(f"{found.path}:{found.line}: {rule.part} must not import {found.imported}. {rule.advice}")
    return problems


def test_imports_point_one_way() -> None:
    problems = broken_rules(ROOT)
    assert not problems, "\n" + "\n".join(problems)


def test_every_module_has_a_rule() -> None:
    # A version number may stand in the package itself; anything else must be placed.
    without = [module for module in modules_of(ROOT) if module != "plugin_server" and rule_for(module) is None]
    assert not without, f"Say in RULES what these may import: {', '.join(without)}"


def test_the_border_modules_of_the_sandbox_stand_alone() -> None:
    # The host imports them, so whatever they import runs in the host.
    problems = [
        f"{found.path}:{found.line}: {found.importer} is imported by the host and must not import {found.imported}"
        for found in imports_of_ours(ROOT)
        if found.importer in SANDBOX_BORDER and found.imported not in SANDBOX_BORDER
    ]
    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("sandbox/worker.py", "import plugin_server"),
        ("sandbox/worker.py", "def run():\n    from plugin_server.model import errors"),
        ("plugin_server/model/event.py", "from plugin_server.eventlog.port import Position"),
        ("plugin_server/model/event.py", "from ..eventlog import port"),
        ("plugin_server/eventlog/kafka.py", "import plugin_server.ingestion.processor"),
        ("plugin_server/capture/routes.py", "from plugin_server.eventlog.kafka import KafkaLog"),
        ("plugin_server/capture/routes.py", "from plugin_server.eventlog import kafka"),
        (
            "plugin_server/capture/routes.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from plugin_server.settings import Settings",
        ),
        ("plugin_server/runtime/pool.py", "import importlib\nimportlib.import_module('plugin_server.cli.main')"),
        ("plugin_server/runtime/pool.py", "from sandbox.guards import getattr_guard"),
        ("plugin_server/ingestion/processor.py", "from plugin_server.delivery.lane import DeliveryLane"),
        ("plugin_server/settings.py", "from plugin_server.cli.main import app"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, path: str, source: str) -> None:
    for existing in ("sandbox/guards.py", "plugin_server/eventlog/kafka.py", "plugin_server/eventlog/port.py"):
        (tmp_path / existing).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / existing).touch()
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(source)
    assert len(broken_rules(tmp_path)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("plugin_server/capture/routes.py", "from plugin_server.eventlog.port import OutputRecord"),
        ("plugin_server/capture/routes.py", "from plugin_server.eventlog import port"),
        ("plugin_server/capture/routes.py", "from . import bodies\nfrom .bodies import parse"),
        ("plugin_server/runtime/pool.py", "from sandbox import wire\nfrom sandbox.wire import FrameKind"),
        ("plugin_server/ingestion/processor.py", "from plugin_server.runtime.pool import Pool"),
        ("plugin_server/cli/service.py", "import plugin_server.ingestion.processor\nimport sandbox.policy"),
    ],
)
def test_an_allowed_import_passes(tmp_path: Path, path: str, source: str) -> None:
    for existing in ("sandbox/wire.py", "plugin_server/eventlog/port.py", "plugin_server/capture/bodies.py"):
        (tmp_path / existing).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / existing).touch()
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(source)
    assert broken_rules(tmp_path) == []
