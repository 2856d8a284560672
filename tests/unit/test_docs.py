"""What the documents say is so: generated pages are fresh, nothing is undocumented, examples are valid, links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main
import yaml

from plugin_server.cli.main import app as cli
from plugin_server.host_api.captures import STEP as CAPTURES_STEP
from plugin_server.ingestion.decode import STEP as DECODE_STEP
from plugin_server.ingestion.emit import STEP as EMIT_STEP
from plugin_server.ingestion.normalise import STEP as NORMALISE_STEP
from plugin_server.metrics import Metrics
from plugin_server.model.lineage import Lineage, parse_lineage
from plugin_server.model.loop_guard import CutReason, judge_captures
from plugin_server.model.outcome import DeadLetter, DeadLetterReason
from plugin_server.model.project import Limits, LoopMode, LoopPolicy
from plugin_server.outputs.dead_letters import dead_letter_record
from plugin_server.outputs.topics import make_topics
from plugin_server.registry.manifest import ConfigField, JobField, parse_manifest
from plugin_server.registry.projects_file import InstallEntry, ProjectEntry
from plugin_server.settings import Settings, load_settings
from plugin_server.testing.cases import read_case
from sandbox.modules.catalogue import module_names
from sandbox.policy import compile_app
from sandbox.wire import APP_HOOKS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docker" / "README.md", *DOCS.rglob("*.md")])
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return [body for found, body in _FENCE.findall(page.read_text("utf-8")) if found == language]


def snippets(language: str) -> list[object]:
    return [
        pytest.param(body, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, body in enumerate(blocks(page, language), 1)
    ]


def first_column(text: str) -> set[str]:
    """The words in code font in the first column of all tables."""
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row)}


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Generated pages


def test_generated_pages_are_fresh(generate: ModuleType):
    for path, wanted in generate.pages().items():
        assert path.read_text("utf-8") == wanted, f"docs/{path.name} is stale: run `make docs`"


def test_every_setting_is_documented_with_a_sentence():
    page = text_of("docs/settings.md")
    for name, field in Settings.model_fields.items():
        assert f"## `PLUGIN_SERVER_{name.upper()}`" in page
        assert field.description, f"{name} has no docstring"


def test_every_variable_that_a_page_names_is_a_setting():
    known = {f"PLUGIN_SERVER_{name.upper()}" for name in Settings.model_fields}
    known |= {"PLUGIN_SERVER_CONFIG", "PLUGIN_SERVER_TESTS_REQUIRE"}
    for page in PAGES:
        for variable in re.findall(r"\bPLUGIN_SERVER_[A-Z_]*[A-Z]\b", page.read_text("utf-8")):
            assert variable in known, f"{page.relative_to(ROOT)} names {variable}"


def test_every_metric_is_documented():
    page = text_of("docs/operations.md")
    for family in Metrics().registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"| `{name}` | {family.type} |" in page


# Nothing undocumented


def commands(group: Any, prefix: str = "plugin-server") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def test_every_command_and_option_is_documented():
    page = "".join(map(text_of, ("docs/operations.md", "docs/writing-apps.md", "docs/testing-apps.md")))
    for name, command in commands(typer.main.get_command(cli)):
        assert name in page
        for parameter in command.params:
            if parameter.name != "help" and parameter.opts[0].startswith("-"):
                assert parameter.opts[0] in page, f"{name} {parameter.opts[0]}"


def test_every_dead_letter_reason_is_documented():
    documented = first_column(text_of("docs/operations.md"))
    assert {str(reason) for reason in DeadLetterReason} <= documented


def test_every_dead_letter_header_is_documented():
    documented = first_column(text_of("docs/operations.md"))
    letter = DeadLetter("decode", DeadLetterReason.TOO_LARGE, "too large", 2, 1, "abc")
    record = dead_letter_record(
        "dead", letter, key=None, value=b"x" * 200_000, headers=[], source="in-0-1", record_bytes=100_000
    )
    assert {name for name, _ in record.headers} <= documented


def test_every_dead_letter_step_is_documented():
    page = text_of("docs/operations.md")
    for step in (DECODE_STEP, NORMALISE_STEP, EMIT_STEP, CAPTURES_STEP, "capture"):
        assert f"`{step}`" in page


def test_every_topic_is_documented():
    assert set(make_topics("").all) <= first_column(text_of("docs/operations.md"))


def test_every_limit_is_documented_with_its_default():
    page = text_of("docs/writing-apps.md")
    for name, field in Limits.model_fields.items():
        assert f"| `{name}` | {field.default} |" in page


def test_every_key_of_the_projects_file_is_documented():
    assert {*ProjectEntry.model_fields, *InstallEntry.model_fields} <= first_column(text_of("docs/operations.md"))


def test_every_type_of_a_public_job_s_field_is_documented():
    page = text_of("docs/writing-apps.md")
    types = JobField.model_json_schema()["properties"]["type"]["enum"]
    assert [kind for kind in types if f"`{kind}`" not in page] == []


def test_every_module_that_apps_can_import_is_documented():
    listed = re.search(r"^- Modules: (.+?)\. ", text_of("docs/writing-apps.md"), re.MULTILINE | re.DOTALL)
    assert listed is not None
    assert set(re.findall(r"`([^`]+)`", listed[1])) == module_names()


def test_every_hook_and_type_of_field_is_documented():
    page = text_of("docs/writing-apps.md")
    assert [hook for hook in APP_HOOKS if f"`{hook}" not in page] == []
    types = ConfigField.model_json_schema()["properties"]["type"]["enum"]
    assert [kind for kind in types if f"`{kind}`" not in page] == []


def test_every_cut_and_bound_of_the_loop_guard_is_documented():
    page = text_of("docs/loop-guard.md")
    for reason in CutReason:
        assert str(reason) in page
    policy = yaml.safe_load(blocks(DOCS / "loop-guard.md", "yaml")[0])["loop_policy"]
    assert LoopPolicy.model_validate(policy) == LoopPolicy()
    assert set(policy) == set(LoopPolicy.model_fields)
    for mode in LoopMode:
        assert f"mode: {mode}" in page


def test_the_map_of_the_tree_leads_to_what_exists():
    for name in re.findall(r"`((?:plugin_server|sandbox)/[\w/]+(?:\.py|/))`", text_of("docs/architecture.md")):
        assert (ROOT / name).exists(), name


# Links and examples


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for link in _LINK.findall(_FENCE.sub("", page.read_text("utf-8"))):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{link} in {page.name}"
        if anchor:
            assert anchor in anchors(path), f"{link} in {page.name}"


@pytest.mark.parametrize("source", snippets("python"))
def test_apps_in_the_documents_compile(source: str):
    if "plugin_server.testing" in source:  # a program for the author's side, which tests/sandbox/test_harness.py runs
        compile(source, "<example>", "exec")
    else:
        compile_app(source, "<example>")


@pytest.mark.parametrize("source", snippets("json"))
def test_json_in_the_documents_is_json(source: str):
    document = json.loads(source)
    if "hook" in document or "steps" in document:
        case = read_case(document, "cases/example.json", 1)
        assert all(step["expect"] for step in case.get("steps") or [case])
    elif "root" in document:
        assert parse_lineage(source.strip().encode()) == Lineage(
            document["root"], document["depth"], tuple(document["path"]), document["budget"]
        )
    else:
        parse_manifest(source.encode(), "plugin.json")


@pytest.mark.parametrize("source", snippets("yaml"))
def test_yaml_in_the_documents_is_yaml(source: str):
    document = yaml.safe_load(source)
    for entry in document if isinstance(document, list) else ():
        InstallEntry.model_validate(entry)


def test_the_install_of_the_readme_fits_into_the_projects_file_as_it_stands():
    addition = blocks(ROOT / "README.md", "yaml")[0]
    lines = text_of("configs/projects.yaml").splitlines(keepends=True)
    end_of_first_project = lines.index("\n")
    lines.insert(end_of_first_project, addition)
    projects = yaml.safe_load("".join(lines))["projects"]
    taken = [install["id"] for project in projects for install in project["installs"]]
    assert len(taken) == len(set(taken))
    assert projects[0]["installs"][-1]["app"] == "../apps/greeter"


def test_variables_of_the_readme_make_valid_settings():
    exported = dict(re.findall(r"^export (\w+)=(\S+)", text_of("README.md"), re.MULTILINE))
    settings = load_settings(environ=exported)
    assert settings.kafka_brokers is not None


# The arithmetic of docs/loop-guard.md


def events_below(
    root_event: str, answer: Callable[[str], Sequence[tuple[int, str]]], policy: LoopPolicy | None = None
) -> tuple[int, set[CutReason]]:
    """How many events are captured below one root when `answer(event)` gives (install, captured event) of each event."""
    policy = policy or LoopPolicy()
    waiting = [(root_event, Lineage("r", 0, (), policy.max_events_per_root))]
    count, reasons = 0, set()
    while waiting:
        name, lineage = waiting.pop()
        wanted = answer(name)
        installs = [install for install, _ in wanted]
        verdict = judge_captures(lineage, lineage.budget, installs, policy, lambda _install: True)
        count += len(verdict.admitted)
        reasons |= set(verdict.cut.values())
        waiting += [(wanted[number][1], below) for number, below in verdict.admitted.items()]
    return count, reasons


def ring(size: int) -> Callable[[str], Sequence[tuple[int, str]]]:
    """`size` apps; each answers the event of the one before it."""
    return lambda name: [((int(name) + 1) % size, str((int(name) + 1) % size))]


@pytest.mark.parametrize(
    ("size", "events", "reason"), [(2, 6, CutReason.VISITS), (3, 9, CutReason.VISITS), (5, 10, CutReason.DEPTH)]
)
def test_rings_of_apps_end_where_the_page_says(size: int, events: int, reason: CutReason):
    assert events_below("0", ring(size)) == (events, {reason})


def test_an_app_that_captures_ten_for_each_ends_where_the_page_says():
    assert events_below("x", lambda _name: [(1, "x")] * 10) == (910, {CutReason.BUDGET, CutReason.VISITS})
    assert "910 events" in text_of("docs/loop-guard.md")
