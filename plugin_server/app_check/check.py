"""The check of one app: all rules over its source and its plugin.json. It reads; it never runs any of it."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator

from plugin_server.app_check.finding import Finding, Severity
from plugin_server.app_check.guards import Verdict
from plugin_server.app_check.hooks import check_hooks
from plugin_server.app_check.module_state import check_module_state
from plugin_server.app_check.reading import Reader
from plugin_server.app_check.seen import Seen
from plugin_server.app_check.waiting import check_waiting
from plugin_server.registry.manifest import Manifest
from plugin_server.registry.problems import nearest

SOURCE_LIMIT_BYTES = 256 * 1024
"""As the sandbox has it: no larger source compiles."""
_CAPTURED = {
    Verdict.UNGUARDED: (
        "posthog.capture is reached for every event, and what it makes is an event too: it will capture for its own, again and "
        'again; put it under a condition on the event, such as if event["event"] == "…"'
    ),
    Verdict.LOOP: (
        "a loop in the making: the condition lets the captured event itself through, so each one captures the next; "
        "capture another name, or leave that name out of the condition"
    ),
}


def check_app(source: str, manifest: Manifest | None = None) -> list[Finding]:
    """What is wrong with an app, by line. Without a manifest nothing is said of config keys.

    Pure, bounded in time, raises nothing: a source that cannot be read is a finding. What the dialect refuses is not looked for
    here, for that is the compiler's answer (`sandbox/policy.py`). Parsing takes time and memory: not for a server's event loop.
    """
    if len(source) > SOURCE_LIMIT_BYTES:
        return [
            Finding(None, Severity.ERROR, f"the source is larger than {SOURCE_LIMIT_BYTES // 1024} KiB; split the app")
        ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as `x is 1`
            tree = ast.parse(source)
        found = list(_findings(tree, manifest))
    except SyntaxError as error:
        return [Finding(error.lineno, Severity.ERROR, error.msg)]
    except (RecursionError, MemoryError):
        return [Finding(None, Severity.ERROR, "the source is nested too deeply; split the expression or the block")]
    except ValueError as error:
        return [Finding(None, Severity.ERROR, f"the source cannot be read: {error}; remove the character")]
    return sorted(dict.fromkeys(found), key=lambda finding: (finding.line or 0, finding.message))


def _findings(tree: ast.Module, manifest: Manifest | None) -> Iterator[Finding]:
    yield from check_hooks(tree)
    yield from check_waiting(tree)
    yield from check_module_state(tree)
    reader = Reader()
    reader.read(tree)
    for (line, _), verdict in reader.seen.captures.items():
        if verdict in _CAPTURED:
            yield Finding(line, Severity.WARNING, _CAPTURED[verdict])
    if manifest is not None:
        yield from _check_config_keys(tree, manifest, reader.seen)


def _check_config_keys(tree: ast.Module, manifest: Manifest, seen: Seen) -> Iterator[Finding]:
    declared = manifest.fields
    for key, line in seen.config_keys.items():
        if key not in declared:
            meant = nearest(key, declared)
            advice = f"did you mean {meant}?" if meant else "declare it under config"
            yield Finding(line, Severity.WARNING, f'plugin.json declares no config key "{key}"; {advice}')
    # Any mention counts: a key may be kept in a table, or name an attachment.
    mentioned = {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    for key, field in declared.items():
        if field.required and key not in mentioned and not seen.reads_any_key:
            message = (
                f'plugin.json requires the config key "{key}", which the app never reads; read it, or remove it there'
            )
            yield Finding(None, Severity.WARNING, message)
