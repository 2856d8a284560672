"""`meta`: the last argument of every hook."""

from __future__ import annotations

from typing import Any

from sandbox.facade import facade


def make_meta(config: dict[str, Any], attachments: dict[str, dict[str, Any]]) -> object:
    """The `meta` of one install, by attribute and by item.

    `attachments` maps a name to content_type, file_name and contents (bytes). `global` is a dict of the install's own,
    kept for the life of the sandbox; being a keyword, it is `meta.global_` by attribute.
    """
    own: dict[str, Any] = {}
    return facade(
        "meta",
        {
            "config": config,
            "attachments": {name: facade("attachment", fields, items=True) for name, fields in attachments.items()},
            "global": own,
            "global_": own,
        },
        items=True,
    )
