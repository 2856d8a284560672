"""YAML without its traps: plain text is never taken for a date or a yes/no, and a key written twice is an error."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from plugin_server.model.errors import ConfigurationError

_BOOLEAN_TAG = "tag:yaml.org,2002:bool"
_TIMESTAMP_TAG = "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if isinstance(key, str) and key != "<<":
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"`{key}` is written twice", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_BOOLEAN_TAG, _TIMESTAMP_TAG)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOLEAN_TAG, re.compile(r"true|True|TRUE|false|False|FALSE", re.ASCII), list("tTfF"))


def read_yaml(path: Path) -> object:
    """The document in `path`. Raises ConfigurationError that names the file and the line. Blocks."""
    try:
        return yaml.load(path.read_bytes(), Loader=_Loader)  # noqa: S506 - derived from SafeLoader
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}). Write the path of a YAML file.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigurationError(f"{path}{place}: is not valid YAML: {error.problem or error.context}.") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: is not valid YAML: {str(error).splitlines()[0]}.") from None
