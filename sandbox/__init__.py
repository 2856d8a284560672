"""The child side: what runs inside a sandbox process. It imports nothing of plugin_server."""
