"""The projects file: what it gives, and that each mistake is named with its key path and the cure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.model.api_keys import hash_api_key
from plugin_server.model.errors import ConfigurationError
from plugin_server.model.project import Isolation, LoopMode, Project, SandboxPlan
from plugin_server.registry.projects_file import INSTALL_ID_MAX, derived_install_id, read_projects_file
from plugin_server.registry.registry import Registry, load_registry


def write_app(folder: Path, source: str = "", **manifest: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plugin.json").write_text(json.dumps({"name": folder.name, **manifest}))
    (folder / "main.py").write_text(source)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_app(tmp_path / "apps" / "a")
    write_app(tmp_path / "apps" / "b", config=[{"key": "url", "type": "string"}, {"key": "token", "secret": True}])
    return tmp_path


def read(folder: Path, text: str, environ: dict[str, str] | None = None) -> tuple[Project, ...]:
    (folder / "projects.yaml").write_text(text)
    return read_projects_file(folder / "projects.yaml", environ or {})


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(folder, text)
    message = str(caught.value)
    assert message.startswith(str(folder / "projects.yaml"))
    return message


def project(*lines: str, installs: tuple[str, ...] = ()) -> str:
    head = "projects:\n  - id: 2\n    name: Acme\n    token: phc_acme\n"
    text = head + "".join(f"    {line}\n" for line in lines)
    return text + ("    installs:\n" + "".join(f"      - {install}\n" for install in installs) if installs else "")


def test_a_full_file_gives_projects_with_installs_in_running_order(folder):
    text = project(
        "loop_policy: {mode: warn, max_depth: 5}",
        "limits: {hook_seconds: 3}",
        "isolation: install",
        "sandbox_processes: 1",
        installs=(
            "{id: 9, app: ./apps/b, order: 2, config: {url: x, token: {env: TOKEN}}}",
            "{id: 8, app: apps/a, order: 2}",
            "{id: 10, app: apps/a, order: 1}",
            "{id: 7, app: apps/nowhere, enabled: false}",
        ),
    )
    (acme,) = read(folder, text, {"TOKEN": "hunter2"})
    assert (acme.id, acme.name, acme.token) == (2, "Acme", "phc_acme")
    assert [install.id for install in acme.installs] == [10, 8, 9]
    assert acme.installs[2].config == {"url": "x", "token": "hunter2"}
    assert "hunter2" not in repr(acme)
    assert (acme.loop_policy.mode, acme.loop_policy.max_depth, acme.loop_policy.max_visits) == (LoopMode.WARN, 5, 3)
    assert acme.limits.hook_seconds == 3
    assert acme.sandbox == SandboxPlan(Isolation.INSTALL, 1)


@pytest.mark.parametrize(
    ("lines", "plan"),
    [
        ((), SandboxPlan(Isolation.PROJECT, 1)),
        (("sandbox_processes: 4",), SandboxPlan(Isolation.PROJECT, 4)),
        (("isolation: project", "sandbox_processes: 2"), SandboxPlan(Isolation.PROJECT, 2)),
        (("isolation: shared",), SandboxPlan(Isolation.SHARED, 1)),
    ],
)
def test_a_project_says_how_its_apps_are_spread_over_sandboxes(folder, lines, plan):
    (acme,) = read(folder, project(*lines))
    assert acme.sandbox == plan


def test_personal_api_keys_are_kept_as_hashes_of_what_the_environment_holds(folder):
    key = "phx_" + "k" * 30
    (acme,) = read(
        folder, project("personal_api_keys: [{env: KEY}, {env: KEY2}]"), {"KEY": f" {key}\n", "KEY2": key[::-1]}
    )
    assert acme.api_keys == (hash_api_key(key), hash_api_key(key[::-1]))
    assert key not in repr(acme)


@pytest.mark.parametrize(
    ("value", "cure"),
    [
        (None, "KEY, which is not set. Set it."),
        ("", "KEY, which is not set. Set it."),
        ("phx_tooshort", "24 or more ASCII characters"),
        ("phx_ with a space, but long enough", "24 or more ASCII characters"),
        ("phx_" + "ü" * 30, "`openssl rand -hex 24`"),
    ],
)
def test_a_personal_api_key_that_could_be_guessed_is_refused_without_being_shown(folder, value, cure):
    with pytest.raises(ConfigurationError) as caught:
        read(folder, project("personal_api_keys: [{env: KEY}]"), {} if value is None else {"KEY": value})
    message = str(caught.value)
    assert "projects[0].personal_api_keys[0]: " in message
    assert cure in message
    assert not value or value not in message


@pytest.mark.parametrize(
    ("text", "where", "cure"),
    [
        ("", "projects.yaml", "must begin with `projects:`"),
        ("projects: [", "projects.yaml, line 1", "not valid YAML"),
        ("projects: []\nprojects: []", "line 2", "`projects` is written twice"),
        ("projects: &a [*a]", "projects[0]", "must be"),
        ("project: []", "project", "Write `projects` instead"),
        ("projects: {}", "projects", "Write, for example, `projects: ["),
        ("projects: [{id: 1}]", "projects[0].token", "is missing. Write, for example, `token: phc_acme`"),
        ("projects: [{id: one, token: t}]", "projects[0].id", "Write, for example, `id: 2`"),
        ("projects: [{id: true, token: t}]", "projects[0].id", "Write, for example, `id: 2`"),
        ("projects: [{id: 0, token: t}]", "projects[0].id", "greater than or equal to 1"),
        ("projects: [{id: 1, token: ''}]", "projects[0].token", "1 to 64 characters"),
        ("projects: [{id: 1, token: phx_a}]", "projects[0].token", "personal API key"),
        ("projects: [{id: 1, token: 'a b'}]", "projects[0].token", "without spaces"),
        ("projects: [{id: 1, token: a}, {id: 1, token: b}]", "projects[1].id", "projects[0]"),
        ("projects: [{id: 1, token: a}, {id: 2, token: a}]", "projects[1].token", "projects[0]"),
        (project("personal_api_keys: [phx_in_the_file_itself_xxxxxx]"), "personal_api_keys[0]", "must be"),
        (project("personal_api_keys: [{key: x}]"), "personal_api_keys[0].env", "is missing"),
        (project("tokn: x"), "projects[0].tokn", "Write `token` instead"),
        (project("loop_policy: {max_dept: 1}"), "projects[0].loop_policy.max_dept", "Write `max_depth` instead"),
        (project("loop_policy: {max_depth: 200}"), "projects[0].loop_policy.max_depth", "less than or equal to 100"),
        (project("loop_policy: {mode: on}"), "projects[0].loop_policy.mode", "'enforce', 'warn' or 'off'"),
        (project("limits: {memory_bytes: 1}"), "projects[0].limits.memory_bytes", "Its default is 268435456"),
        (project("isolation: none"), "projects[0].isolation", "'project', 'install' or 'shared'"),
        (project("sandbox_processes: 0"), "projects[0].sandbox_processes", "greater than or equal to 1"),
        (
            project("isolation: install", "sandbox_processes: 2"),
            "projects[0].sandbox_processes",
            "needs `isolation: project`, not install",
        ),
        (
            project("sandbox_processes: 3", "isolation: shared"),
            "projects[0].sandbox_processes",
            "needs `isolation: project`, not shared",
        ),
        (project(installs=("{ap: apps/a}",)), "projects[0].installs[0].ap", "Write `app` instead"),
        (project(installs=("{order: 1}",)), "projects[0].installs[0].app", "is missing"),
        (project(installs=("{app: apps/a, order: first}",)), "projects[0].installs[0].order", "`order: 1`"),
        (project(installs=("{app: apps/a, order: 1.5}",)), "projects[0].installs[0].order", "`order: 1`"),
        (project(installs=("{app: apps/a, enabled: no}",)), "projects[0].installs[0].enabled", "`enabled: false`"),
        (project(installs=("{app: apps/a, id: 2147483648}",)), "projects[0].installs[0].id", "2147483647"),
        (
            project(installs=("{app: apps/a, id: 5}", "{app: apps/b, id: 5}")),
            "projects[0].installs[1].id",
            "projects[0].installs[0].id",
        ),
        (project(installs=("{app: apps/none}",)), "projects[0].installs[0].app", "does not exist"),
        (project(installs=("{app: 'catalogue:geoip'}",)), "projects[0].installs[0].app", "not in this version"),
        (
            project(installs=("{app: apps/b, config: {ur: x}}",)),
            "projects[0].installs[0].config.ur",
            "Write `url` instead; known are: url, token",
        ),
        (
            project(installs=("{app: apps/b, config: {token: {env: NOT_SET}}}",)),
            "projects[0].installs[0].config.token",
            "NOT_SET, which is not set",
        ),
        (project(installs=("{app: apps/b, config: {url: 1}}",)), "projects[0].installs[0].config.url", "in quotes"),
        (
            project(installs=("{app: apps/b, config: [url]}",)),
            "projects[0].installs[0].config",
            "`config: {key: value}`",
        ),
        (
            project(installs=("{app: apps/b, attachments: {f: x}}",)),
            "projects[0].installs[0].attachments.f",
            "known are: none",
        ),
    ],
)
def test_a_mistake_is_named_by_its_key_path_with_the_cure(folder, text, where, cure):
    message = refusal(folder, text)
    assert where in message
    assert cure in message


def test_all_mistakes_are_named_at_once(folder):
    (folder / "apps" / "a" / "plugin.json").write_text("{")
    message = refusal(
        folder,
        project(installs=("{app: apps/a, id: 1}", "{app: apps/b, id: 1, config: {x: y, url: [z]}}", "{app: gone}")),
    )
    assert f"{folder / 'projects.yaml'} has 5 problems:" in message
    for part in ("installs[0].app", "line 1, column 2", "installs[1].id", "config.x", "config.url", "installs[2].app"):
        assert part in message


def test_one_broken_app_is_one_problem_however_often_it_is_installed(folder):
    message = refusal(folder, project(installs=("{app: gone, id: 1}", "{app: gone, id: 2}")))
    assert message.count("does not exist") == 1


def test_values_of_secrets_never_get_into_a_message(folder):
    message = refusal(folder, project(installs=("{app: apps/b, config: {token: [hunter2], other: hunter2}}",)))
    assert "hunter2" not in message


def test_a_missing_file_is_refused_by_its_name(tmp_path):
    with pytest.raises(ConfigurationError, match=r"projects\.yaml cannot be read"):
        load_registry(tmp_path / "projects.yaml", {})


def test_an_unnamed_project_is_called_by_its_id(folder):
    assert read(folder, "projects: [{id: 4, token: t}]")[0].name == "Project 4"


def test_plain_words_and_dates_stay_text(folder):
    write_app(folder / "apps" / "c", config=[{"key": "from"}, {"key": "yes"}])
    installs = read(folder, project(installs=("{app: apps/c, config: {from: 2026-11-23, yes: no}}",)))[0].installs
    assert installs[0].config == {"from": "2026-11-23", "yes": "no"}


def test_a_derived_id_survives_other_installs_a_moved_folder_and_switching_off(folder):
    ids = [i.id for i in read(folder, project(installs=("app: apps/a", "app: apps/a")))[0].installs]
    write_app(folder / "moved" / "a")
    texts = ("app: apps/b", "{app: apps/a, enabled: false}", "{app: moved/a, order: 7}")
    after = read(folder, project(installs=texts))[0].installs
    assert after[-1].id in ids
    assert after[-1].id == derived_install_id(2, "a", 1)
    assert len(set(ids)) == 2


@given(st.integers(1, 2**31), st.text(max_size=20), st.integers(0, 1000))
def test_a_derived_id_is_a_positive_31_bit_number_and_always_the_same(project_id, slug, nth):
    install_id = derived_install_id(project_id, slug, nth)
    assert 1 <= install_id <= INSTALL_ID_MAX
    assert install_id == derived_install_id(project_id, slug, nth)


def test_an_app_with_a_syntax_error_loads_and_is_left_to_the_sandbox(folder):
    write_app(folder / "apps" / "broken", "def processEvent(event, meta:\n")
    (install,) = read(folder, project(installs=("app: apps/broken",)))[0].installs
    assert install.app.source.startswith("def processEvent")


def test_a_registry_finds_projects_by_token_and_by_id(folder):
    (folder / "projects.yaml").write_text(project("sandbox_processes: 3", installs=("app: apps/a",)))
    registry = load_registry(folder / "projects.yaml", {})
    (acme,) = registry.projects
    assert registry.by_token("phc_acme") is acme
    assert registry.by_id(2) is acme
    assert registry.by_token("phc_other") is None
    assert registry.by_id(3) is None
    assert acme.sandbox.processes == 3


def test_a_registry_refuses_two_projects_of_one_token(folder):
    (acme,) = read(folder, project())
    with pytest.raises(ValueError, match="same id or token"):
        Registry([acme, acme])


@given(st.text("projects:{}[]-&*!|<>#'\"\n\t 12abid,tokenappcfg.", max_size=80))
def test_any_text_is_read_or_refused_by_name(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("projects") / "projects.yaml"
    for content in (text, f"projects:\n  - {text}", f"projects: [{{id: 2, token: t, installs: [{{app: {text}}}]}}]"):
        path.write_text(content)
        try:
            read_projects_file(path, {})
        except ConfigurationError as error:
            assert str(path) in str(error)  # noqa: PT017 - it may be a good one
