"""`meta`: the last argument of every hook."""

from __future__ import annotations

from typing import Any

from sandbox.facade import facade
from sandbox.globals.cache import Cache
from sandbox.globals.geoip import Geoip
from sandbox.globals.jobs import Jobs
from sandbox.globals.metrics import Metrics
from sandbox.globals.storage import Storage, Utils
from sandbox.invocation import Context


def make_meta(
    install: int,
    context: Context,
    config: dict[str, Any],
    attachments: dict[str, dict[str, Any]],
    jobs: Jobs,
    metrics: Metrics,
) -> object:
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
            "storage": Storage(context, install),
            "cache": Cache(context, install),
            "geoip": Geoip(context, install),
            "jobs": jobs,
            "metrics": metrics,
            "utils": Utils(context, install),
        },
        items=True,
    )
