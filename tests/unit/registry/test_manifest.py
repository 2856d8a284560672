"""plugin.json: PostHog's format and ours are taken, typing errors are not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.model.errors import ConfigurationError
from plugin_server.registry.manifest import Manifest, parse_manifest


def parse(**document: Any) -> Manifest:
    return parse_manifest(json.dumps({"name": "A", **document}).encode(), "a/plugin.json")[0]


def test_a_full_manifest_is_read():
    manifest = parse(
        description="d",
        url="https://x",
        main="src/app.py",
        config=[
            {"markdown": "text"},
            {"key": "k", "type": "choice", "choices": ["a", "b"], "default": "a", "order": 1},
        ],
        publicJobs={"import": {"payload": {"since": {"type": "date", "title": "Since", "required": True}}}},
        posthogVersion=">= 1.25.0",
        stateless=True,
        egress=["api.example.com", "*.example.org:8443", "{k}"],
        limits={"hook_seconds": 60},
    )
    assert list(manifest.fields) == ["k"]
    assert manifest.fields["k"].choices == ("a", "b")
    assert manifest.public_jobs["import"].payload["since"].required
    assert manifest.limits == {"hook_seconds": 60}
    dumped = manifest.model_dump(mode="json", by_alias=True)
    assert dumped["publicJobs"]["import"]["payload"]["since"]["type"] == "date"
    assert Manifest.model_validate_json(json.dumps(dumped)) == manifest


def test_the_form_of_2020_is_read():
    assert parse(config={"k": {"name": "K", "type": "string"}}).fields["k"].name == "K"


def test_keys_of_the_ecosystem_that_mean_nothing_here_are_ignored():
    manifest = parse(lib="lib.js", metrics={"m": "sum"}, author="x", version="1", **{"$schema": "y", "tags": []})
    assert manifest == parse()


@pytest.mark.parametrize(
    ("document", "where", "cure"),
    [
        ({"name": ""}, "name", "at least 1"),
        ({"name": 1}, "name", 'Write, for example, `name: "URL cleaner"`'),
        ({"confg": []}, "confg", "Write `config` instead"),
        ({"publicjobs": {}}, "publicjobs", "Write `publicJobs` instead"),
        ({"config": [{"key": "a", "requird": True}]}, "config[0].requird", "Write `required` instead"),
        ({"config": "x"}, "config", "Write, for example"),
        ({"config": [{"key": "a", "type": "text"}]}, "config[0].type", "'string', 'attachment', 'choice'"),
        ({"config": [{"key": "a", "type": "choice"}]}, "config[0]", "choices"),
        ({"config": [{"key": "a"}, {"key": "a"}]}, "plugin.json", "`a` twice"),
        ({"config": [{"key": 1}]}, "config[0].key", "string"),
        ({"main": ""}, "main", "inside the app's folder"),
        ({"main": "/app.py"}, "main", "inside the app's folder"),
        ({"main": "a\\b.py"}, "main", "inside the app's folder"),
        ({"main": "index.ts"}, "main", "Python file"),
        ({"egress": ["https://x.com/path"]}, "plugin.json", "without scheme and path"),
        ({"egress": ["{host}"]}, "plugin.json", "`{host}`, which config does not declare"),
        ({"egress": ["*"]}, "plugin.json", "no host"),
        ({"limits": {"hook_second": 1}}, "limits", "Write `hook_seconds` instead"),
        ({"limits": {"hook_seconds": 0}}, "limits", "greater than 0"),
        ({"publicJobs": {"a": {"payload": {"b": {"type": "text"}}}}}, "publicJobs.a.payload.b.type", "'daterange'"),
        ({"stateless": "yes"}, "stateless", "boolean"),
    ],
)
def test_a_mistake_is_named_by_file_and_place_with_the_cure(document, where, cure):
    with pytest.raises(ConfigurationError) as caught:
        parse(**document)
    assert str(caught.value).startswith("a/plugin.json")
    assert where in str(caught.value)
    assert cure in str(caught.value)


def test_the_canonical_form_does_not_depend_on_layout():
    _, one = parse_manifest(b'{"name": "A", "url": "x"}', "f")
    _, two = parse_manifest(b'{\n"url":"x",\n"name":"A"}', "f")
    assert one == two


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["name", "main", "config", "publicJobs", "egress", "limits", "url"]), JSON))
def test_any_json_is_read_or_refused_by_name(document):
    try:
        parse_manifest(json.dumps(document).encode(), "a/plugin.json")
    except ConfigurationError as error:
        assert str(error).startswith("a/plugin.json")  # noqa: PT017 - it may be a good one
