"""`plugin_configs`: which apps a project has installed, and how. Read-only: the projects file is where it is changed.

Only installs that are enabled are known here. Why one fails stands in its log (`plugin_log_entries`), so `error` is null.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from plugin_server.admin.api.errors import json_answer, method_not_allowed, not_found
from plugin_server.admin.api.pages import listing, page_of
from plugin_server.model.api import ApiRequest, ApiResponse
from plugin_server.model.project import Attachment, Install, Project

MASK = "**************** POSTHOG SECRET FIELD ****************"


async def answer_plugin_configs(request: ApiRequest, project: Project, rest: tuple[str, ...]) -> ApiResponse:
    """Answers for `plugin_configs` and `plugin_configs/{id}`. Raises ApiRefusal."""
    if len(rest) > 1:
        raise not_found("There is nothing below an install.")
    if request.method != "GET":
        raise method_not_allowed(("GET",))
    if not rest:
        page = page_of(request)
        shown = project.installs[page.offset : page.offset + page.limit]
        results = [plugin_config(install, project.id) for install in shown]
        return json_answer(HTTPStatus.OK, listing(request, page, len(project.installs), results))
    for install in project.installs:
        if str(install.id) == rest[0]:
            return json_answer(HTTPStatus.OK, plugin_config(install, project.id))
    raise not_found("This project has no such install, or it is not enabled. List them at plugin_configs/.")


def plugin_config(install: Install, project_id: int) -> dict[str, Any]:
    """An install in PostHog's form, without its secrets and without the contents of its attachments."""
    manifest = install.app.manifest
    is_secret = {field["key"]: bool(field.get("secret")) for field in manifest.get("config", ()) if field.get("key")}
    config = {
        key: MASK if is_secret.get(key) and value not in (None, "") else value for key, value in install.config.items()
    }
    for key, attachment in install.attachments.items():
        config[key] = _attachment(key, attachment, is_secret=is_secret.get(key, False))
    return {
        "id": install.id,
        "plugin": install.id,
        "enabled": True,
        "order": install.order,
        "config": config,
        "error": None,
        "team_id": project_id,
        "plugin_info": {
            "name": install.app.name,
            "description": manifest.get("description", ""),
            "url": manifest.get("url", ""),
            "tag": install.app.version,
        },
    }


def _attachment(key: str, attachment: Attachment, *, is_secret: bool) -> dict[str, Any]:
    return {
        "uid": -1 if is_secret else key,
        "saved": True,
        "size": -1 if is_secret else len(attachment.contents),
        "name": MASK if is_secret else attachment.file_name,
        "type": attachment.content_type,
    }
