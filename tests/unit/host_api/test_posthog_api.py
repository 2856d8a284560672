"""The host's side of `posthog.api` (reference behaviours 45 to 51)."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.host_api.posthog_api import ONE_KEY, check_path, make_api
from plugin_server.host_api.urls import parse_url
from plugin_server.model.errors import AppError, FetchRefused, InvalidArgument, LimitReached
from tests.unit.host_api.doubles import TOKEN, Doors, FakeClient, context

LINKED = "https://ph.example"
KEYS = {"projectApiKey": "phc_x", "personalApiKey": "phx_x"}


class Stage:
    def __init__(self, posthog_host: str | None = LINKED, key: str | None = "phx_configured") -> None:
        self.client = FakeClient()
        self.side = Doors(posthog_host=posthog_host)
        self.context = context()
        self.api = make_api(self.client, self.side.doors, self.side.hosts, lambda _project: key, request_bytes=1_000)

    async def ask(self, method: str, path: str, options: dict[str, Any] | None = None) -> Any:
        return await self.api(self.context, [method, path, options or {}])

    @property
    def sent(self) -> tuple[str, str, dict[str, str], bytes]:
        [request] = self.client.requests
        return request.method, request.url, dict(request.headers), request.body


async def test_get_from_the_linked_posthog_has_the_projects_keys():
    stage = Stage()
    await stage.ask("GET", "/api/event")
    assert stage.sent == ("GET", f"{LINKED}/api/event?token={TOKEN}", {"Authorization": "Bearer phx_configured"}, b"")


async def test_data_of_get_are_parameters():
    stage = Stage()
    await stage.ask("GET", "/api/event", {"data": {"url": "param"}})
    assert stage.sent[1] == f"{LINKED}/api/event?url=param&token={TOKEN}"


async def test_data_of_delete_are_parameters_too():
    stage = Stage()
    data = {"a b": "ü&=", "n": 1, "f": 1.5, "t": True, "none": None, "list": [1, "x"], "dict": {"a": False}}
    await stage.ask("DELETE", "/api/event/?x=y", {"data": data})
    method, url, headers, body = stage.sent
    assert (method, body, "Content-Type" in headers) == ("DELETE", b"", False)
    assert parse_qsl(urlsplit(url).query) == [
        ("x", "y"),
        ("a b", "ü&="),
        ("n", "1"),
        ("f", "1.5"),
        ("t", "true"),
        ("list", '[1,"x"]'),
        ("dict", '{"a":false}'),
        ("token", TOKEN),
    ]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_data_of_the_others_are_json(method: str):
    stage = Stage()
    await stage.ask(method, "/api/event", {"data": {"a": [1, "ü"]}})
    sent_method, url, headers, body = stage.sent
    assert (sent_method, url) == (method, f"{LINKED}/api/event?token={TOKEN}")
    assert headers["Content-Type"] == "application/json"
    assert orjson.loads(body) == {"a": [1, "ü"]}


async def test_no_data_is_an_empty_object():
    stage = Stage()
    await stage.ask("POST", "/api/event")
    assert stage.sent[3] == b"{}"


async def test_explicit_keys_are_what_is_sent():
    for host in (LINKED, "https://other.example"):
        stage = Stage()
        await stage.ask("GET", "/api/event", {**KEYS, "host": host})
        assert stage.sent[1:3] == (f"{host}/api/event?token=phc_x", {"Authorization": "Bearer phx_x"})


async def test_a_foreign_host_gets_nothing_of_ours():
    stage = Stage()
    await stage.ask("POST", "/capture", {"host": "https://other.example/", "headers": {"X-A": "b"}})
    headers = {"X-A": "b", "Content-Type": "application/json"}
    assert stage.sent == ("POST", "https://other.example/capture", headers, b"{}")
    assert stage.context.effects.of(7).posted == {}


@pytest.mark.parametrize(
    "keys", [{"projectApiKey": "a"}, {"personalApiKey": "a"}, {"projectApiKey": "a", "personalApiKey": ""}]
)
async def test_one_key_without_the_other_is_refused(keys: dict[str, str]):
    stage = Stage()
    with pytest.raises(InvalidArgument) as caught:
        await stage.ask("GET", "/api/event", keys)
    assert ONE_KEY in str(caught.value)
    assert stage.client.requests == []


async def test_empty_keys_are_none():
    stage = Stage()
    await stage.ask("GET", "/api/event", {"projectApiKey": "", "personalApiKey": ""})
    assert stage.sent[2] == {"Authorization": "Bearer phx_configured"}


async def test_current_is_the_project_wherever_it_stands():
    stage = Stage()
    await stage.ask("GET", "/api/projects/@current/x/@current")
    assert urlsplit(stage.sent[1]).path == "/api/projects/2/x/2"


async def test_posthog_cloud_means_the_linked_posthog():
    stage = Stage()
    await stage.ask("GET", "/api/event", {"host": "https://app.posthog.com"})
    assert stage.sent[1].startswith(f"{LINKED}/api/event")


async def test_a_header_of_the_app_beats_the_configured_key():
    stage = Stage(key=None)
    await stage.ask("POST", "/api/x", {"headers": {"authorization": "Bearer mine", "content-type": "a/b"}})
    assert stage.sent[2] == {"authorization": "Bearer mine", "content-type": "a/b"}


async def test_a_linked_posthog_without_a_key_is_an_error_that_names_the_setting():
    stage = Stage(key=None)
    with pytest.raises(AppError, match=r"^posthog\.api\.get: .*personal_api_key"):
        await stage.ask("GET", "/api/event")
    assert stage.client.requests == []


@pytest.mark.parametrize("posthog_host", [None, LINKED])
async def test_events_posted_to_a_capture_path_join_the_captures(posthog_host: str | None):
    stage = Stage(posthog_host, key=None)
    answer = await stage.ask("POST", "/capture/", {"data": {"event": "a"}})
    assert [capture.event for capture in stage.context.effects.of(7).posted_in_order] == ["a"]
    assert (answer["status"], answer["captured"], answer["body"]) == (200, 1, {"text": '{"status": 1}'})
    assert stage.client.requests == []


async def test_events_for_another_project_go_on_to_the_linked_posthog():
    stage = Stage()
    await stage.ask("POST", "/capture/", {"data": {"event": "a"}, **KEYS})
    assert stage.context.effects.of(7).posted == {}
    assert stage.sent[1] == f"{LINKED}/capture/?token=phc_x"


async def test_this_server_answers_in_process_as_the_project():
    stage = Stage(None)
    answer = await stage.ask(
        "POST",
        "/api/projects/@current/annotations",
        {"host": "https://app.posthog.com", "data": {"content": "New signup"}},
    )
    [(request, project_id)] = stage.side.api.asked
    assert (request.method, request.path, request.query) == ("POST", "/api/projects/2/annotations", {"token": TOKEN})
    assert orjson.loads(request.body) == {"content": "New signup"}
    assert request.headers["content-type"] == "application/json"
    assert project_id == 2
    assert (answer["status"], answer["body"]) == (201, {"text": '{"id": 1}'})
    assert stage.client.requests == []


async def test_this_server_does_not_act_for_another_projects_key():
    stage = Stage(None)
    answer = await stage.ask("GET", "/api/projects/@current/annotations", KEYS)
    assert answer["status"] == 401
    assert stage.side.api.asked == []
    own = await stage.ask(
        "GET", "/api/projects/@current/annotations", {"projectApiKey": TOKEN, "personalApiKey": "phx"}
    )
    assert own["status"] == 201


async def test_egress_holds_for_other_hosts():
    stage = Stage()
    with pytest.raises(FetchRefused, match=r"^posthog\.api\.get: "):
        await stage.ask("GET", "/", {"host": "http://169.254.169.254"})


async def test_a_body_beyond_the_limit_is_refused():
    with pytest.raises(LimitReached, match="bytes"):
        await Stage().ask("POST", "/api/x", {"data": "x" * 1_000})


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["GET", "/x"],
        ["HEAD", "/x", {}],
        ["GET", 1, {}],
        ["GET", "/x", []],
        ["GET", "/x", {"hosts": "https://x.example"}],
        ["GET", "/x", {"host": 1}],
        ["GET", "/x", {"host": "x.example"}],
        ["GET", "/x", {"host": "https://x.example/path"}],
        ["GET", "/x", {"host": "https://x.example?"}],
        ["GET", "/x", {"host": "https://x.example/../y"}],
        ["GET", "/x", {"host": "https://app.posthog.com@evil.example"}],
        ["GET", "/x", {"host": "https://evil.example\\.posthog.com"}],
        ["GET", "/x", {"host": "file:///"}],
        ["GET", "/x", {"projectApiKey": 1, "personalApiKey": 2}],
        ["GET", "/x", {"projectApiKey": "a", "personalApiKey": "a\r\nX: y"}],
        ["GET", "/x", {"headers": {"X-A": "b\r\nX-C: d"}}],
        ["GET", "/x", {"headers": {"Host": "x"}}],
        ["GET", "/x", {"headers": [["X-A", "b"]]}],
        ["GET", "/x", {"data": [1]}],
        ["GET", "/x", {"data": "text"}],
        ["GET", "/x", {"data": {"a": "\ud800"}}],
        ["POST", "/x", {"data": {"a": "\ud800"}}],
    ],
)
async def test_wrong_arguments_are_refused_by_name_and_nothing_is_sent(arguments: list[Any]):
    stage = Stage()
    with pytest.raises(InvalidArgument, match=r"^posthog\.api"):
        await stage.api(stage.context, arguments)
    assert stage.client.requests == []


# Paths


@pytest.mark.parametrize(
    "path",
    ["/", "/api/event/", "/api/x?next=../y&u=https://z", "/api/a%2Fb", "/api/a b/ü", "/@me", "/api/a:b", "/api/%25x"],
)
def test_paths_below_the_root_are_taken(path: str):
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "api/event",
        "//evil.example/x",
        "/%2fevil.example",
        "/%252fevil.example",
        "https://evil.example/",
        "@evil.example/",
        ":80/",
        ".evil.example/",
        "\\evil.example",
        "/\\evil.example",
        "/%5cevil.example",
        "/../x",
        "/api/..",
        "/api/%2e%2e/x",
        "/api/%2E./x",
        "/api/..%2fx",
        "/api/%252e%252e/x",
        "/api/%25252e%25252e/x",
        "/api/..;/x",
        "/x\r\nHost: y",
        "/x\0",
        "/x\t",
        "/x%0d%0aHost:y",
        "/x\x85",
        "/x#y",
        "/" + "%25" * 9 + "%2e" * 9 + "%" + "25" * 9 + "2e",
        " /x",
    ],
)
def test_paths_that_could_lead_elsewhere_are_refused(path: str):
    with pytest.raises(InvalidArgument, match="path"):
        check_path(path)


_PIECES = st.sampled_from(
    [
        "/",
        "//",
        "..",
        ".",
        "%2e",
        "%2f",
        "%5c",
        "\\",
        "@",
        ":",
        "?",
        "#",
        "%25",
        "%",
        "\r\n",
        "\t",
        "evil.example",
        "https://",
        "@current",
        "a",
    ]
)


@given(st.lists(_PIECES | st.text(max_size=2), max_size=8).map("".join))
def test_no_path_leaves_its_host(text: str):
    try:
        path = check_path(text)
        url = parse_url("https://host.example" + path)
    except InvalidArgument:
        return
    assert url.origin == "https://host.example"
    assert url.path.startswith("/")
    assert not url.path.startswith("//")
    assert ".." not in url.path
