"""What authors test their apps with: `AppHarness`, which runs them in the real sandbox with no server and no network."""

from plugin_server.testing.harness import AppHarness, HookNotFound
from plugin_server.testing.run import Node, Run, RunError, Tree

__all__ = ["AppHarness", "HookNotFound", "Node", "Run", "RunError", "Tree"]
