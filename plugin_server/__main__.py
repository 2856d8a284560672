"""`python -m plugin_server`."""

from plugin_server.cli.main import app

app()
