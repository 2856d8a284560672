"""Temporary tokens and personal API keys: what opens a project, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.admin.api.auth import TOKEN_SECONDS, AccessTokens, Authenticator
from plugin_server.admin.api.errors import ApiRefusal
from plugin_server.model.api_keys import hash_api_key
from plugin_server.model.project import Project

SECRET = "a secret key of the operator"
KEY, SHARED = "phx_" + "k" * 30, "phx_" + "s" * 30
NOW = 1_800_000_000.5


def authenticator(now: float = NOW) -> Authenticator:
    projects = [
        Project(2, "Acme", "phc_acme", api_keys=(hash_api_key(KEY), hash_api_key(SHARED))),
        Project(3, "Other", "phc_other", api_keys=(hash_api_key(SHARED),)),
        Project(4, "None", "phc_none"),
    ]
    return Authenticator(AccessTokens(SECRET), lambda: projects, lambda: now)


def test_a_token_opens_its_project_for_a_minute():
    token = AccessTokens(SECRET).issue(2, NOW)
    assert AccessTokens(SECRET).verify(token, NOW) == 2
    assert AccessTokens(SECRET).verify(token, NOW + TOKEN_SECONDS - 1) == 2
    assert AccessTokens(SECRET).verify(token, NOW + TOKEN_SECONDS) is None
    assert authenticator().projects_of(f"Bearer {token}") == {2}


def test_a_token_of_another_key_project_or_expiry_is_none():
    tokens = AccessTokens(SECRET)
    token = tokens.issue(2, NOW)
    kind, project, expiry, signature = token.split("_")
    assert AccessTokens("another secret key").verify(token, NOW) is None
    assert tokens.verify(f"{kind}_3_{expiry}_{signature}", NOW) is None
    assert tokens.verify(f"{kind}_{project}_{int(expiry) + 1}_{signature}", NOW) is None
    assert tokens.verify(f"{kind}_{project}_{expiry}_{0:064}", NOW) is None


def test_without_a_secret_key_only_this_process_knows_its_tokens():
    ours = AccessTokens(None)
    token = ours.issue(2, NOW)
    assert ours.verify(token, NOW) == 2
    assert AccessTokens(None).verify(token, NOW) is None


@given(st.text(max_size=120))
def test_no_text_is_a_token_by_chance(text):
    assert AccessTokens(SECRET).verify(text, NOW) is None
    with pytest.raises(ApiRefusal) as refused:
        authenticator().projects_of(f"Bearer {text}")
    assert refused.value.status == 401


@pytest.mark.parametrize(
    ("header", "projects"),
    [(f"Bearer {KEY}", {2}), (f"bearer  {KEY} ", {2}), (f"Bearer {SHARED}", {2, 3})],
)
def test_a_personal_key_opens_the_projects_that_name_it(header, projects):
    assert authenticator().projects_of(header) == projects


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "not_authenticated"),
        ("", "not_authenticated"),
        ("Bearer", "not_authenticated"),
        ("Bearer ", "not_authenticated"),
        (f"Basic {KEY}", "not_authenticated"),
        (KEY, "not_authenticated"),
        ("Bearer phx_unknown", "authentication_failed"),
        ("Bearer phc_acme", "authentication_failed"),
        (f"Bearer {KEY}x", "authentication_failed"),
        (f"Bearer {hash_api_key(KEY).hex()}", "authentication_failed"),
    ],
)
def test_anything_else_is_refused_and_told_what_to_send(header, code):
    with pytest.raises(ApiRefusal) as refused:
        authenticator().projects_of(header)
    assert (refused.value.status, refused.value.code) == (401, code)
    assert "personal API key" in refused.value.detail
    assert refused.value.headers == {"www-authenticate": "Bearer"}


def test_no_key_is_in_the_repr_of_a_project():
    project = Project(2, "Acme", "phc_acme", api_keys=(hash_api_key(KEY),))
    assert "api_keys" not in repr(project)
    assert repr(hash_api_key(KEY)) not in repr(project)
