# What an app finds besides Python, for editors and type checkers, and the source of docs/app-reference.md.
# Copy this folder to `typings/` beside an app: pyright and Pylance take the names below for builtins.
# ruff: noqa: N802, PYI021 - names as apps write them; the docstrings are the reference

from collections.abc import Awaitable, Coroutine, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias, TypedDict

JSON: TypeAlias = Any
"""None, booleans, finite numbers of at most 64 bits, text, and lists and dicts of these, with text keys, up to 100 levels deep."""

class Posthog:
    """What an app asks of its own project."""

    api: Api

    def capture(self, event: str, properties: dict[str, JSON] | None = None) -> Awaitable[None]:
        """Make a new event for the project; it goes through all apps from the start.

        `distinct_id` and `timestamp` (ISO 8601 text or a datetime) may be given in the properties; the defaults are the person
        `App Server` and now. `$lib` and `$lib_version` are added. A hook that fails has captured nothing. Past
        `captures_per_event` of one event it raises `LimitExceeded`; jobs and schedules that belong to no event have `captures_per_run`.
        """

class Api:
    """The PostHog HTTP API. `@current` in a path is the project's id; a path begins with `/`.

    Options, as a dict or by name: `data` (JSON; for GET and DELETE a dict of URL parameters), `host` (default
    `https://app.posthog.com`, which stands for the PostHog that the operator has set), `projectApiKey` and `personalApiKey`
    (both or neither), `headers`. Without keys the request is made in the name of the project. Events that are sent to a capture
    path of the own host count as captures of the event.
    """

    def get(self, path: str, options: ApiOptions | None = None, **named: Any) -> Awaitable[Response]:
        """A GET request; `data` becomes URL parameters."""

    def post(self, path: str, options: ApiOptions | None = None, **named: Any) -> Awaitable[Response]:
        """A POST request; `data` is sent as JSON."""

    def put(self, path: str, options: ApiOptions | None = None, **named: Any) -> Awaitable[Response]:
        """A PUT request; `data` is sent as JSON."""

    def patch(self, path: str, options: ApiOptions | None = None, **named: Any) -> Awaitable[Response]:
        """A PATCH request; `data` is sent as JSON."""

    def delete(self, path: str, options: ApiOptions | None = None, **named: Any) -> Awaitable[Response]:
        """A DELETE request; `data` becomes URL parameters."""

class ApiOptions(TypedDict, total=False):
    data: JSON
    host: str
    projectApiKey: str
    personalApiKey: str
    headers: dict[str, str | float]

class FetchOptions(TypedDict, total=False):
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    headers: dict[str, str | float]
    body: JSON | bytes
    json: JSON

class Response:
    """What a request was answered with, whatever its status."""

    status: int
    """Such as 200."""
    ok: bool
    """The status is from 200 to 299."""
    url: str
    """Where it came from in the end, after redirects."""
    headers: Headers
    """See `headers`."""

    def json(self) -> Awaitable[JSON]:
        """The body as JSON. `ValueError` if it is none."""

    def text(self) -> Awaitable[str]:
        """The body as text. What is not UTF-8 becomes U+FFFD."""

    def bytes(self) -> Awaitable[bytes]:
        """The body as it came."""

class Headers:
    """A response's headers. Names are looked up in any case; also `headers["name"]`, and `"name" in headers`."""

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or `default`."""

    def has(self, name: str) -> bool:
        """Is there such a header?"""

    def keys(self) -> list[str]:
        """All names, in lower case."""

    def items(self) -> list[tuple[str, str]]:
        """All names with their values."""

    def __getitem__(self, name: str) -> str: ...
    def __contains__(self, name: object) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...

class Console:
    """The app's log. Arguments are joined by spaces; lists and dicts are shown as JSON, errors as `Type: message`.

    `print(…)` is `console.log(…)`.
    """

    def debug(self, *values: object) -> None:
        """A line at level DEBUG."""

    def log(self, *values: object) -> None:
        """A line at level LOG."""

    def info(self, *values: object) -> None:
        """A line at level INFO."""

    def warn(self, *values: object) -> None:
        """A line at level WARN."""

    def error(self, *values: object) -> None:
        """A line at level ERROR."""

class RetryError(Exception):
    """Raise it to have the hook called again later, as a destination is away or busy: onEvent, exportEvents, composeWebhook, jobs and setupPlugin are."""

class FetchError(Exception):
    """A request that got no response: no connection, too slow, too large, or not allowed. A hook that it ends is called again as for `RetryError`, unless the request was not allowed."""

class LimitExceeded(Exception):
    """The app asked for more than its limits allow."""

class Meta:
    """The last argument of every hook. Its members are found by item too: `meta["storage"]`."""

    config: dict[str, Any]
    """What the person who installed the app has set, by the keys of `config` in plugin.json."""
    attachments: Mapping[str, Attachment]
    """Files that were uploaded with the configuration, by their keys."""
    global_: dict[str, Any]
    """A dict of the install's own, also `meta["global"]`. It lasts as long as the sandbox; keep in `storage` what must not be lost."""
    storage: Storage
    cache: Cache
    jobs: Jobs
    metrics: Metrics
    geoip: Geoip
    utils: Utils

class Attachment:
    """A file of the configuration; `attachment["contents"]` works too."""

    content_type: str
    """Such as `text/csv`."""
    file_name: str
    """Such as `map.csv`."""
    contents: bytes
    """As it was uploaded."""

class Storage:
    """JSON values that are kept, by keys of the install. What a hook writes counts when it has ended well, and only then.

    Keys are text of at most 2,000 bytes. A value may have 10 MB.
    """

    def get(self, key: str, default: Any = None) -> Awaitable[Any]:
        """The value, or `default` if there is none."""

    def set(self, key: str, value: JSON) -> Awaitable[None]:
        """Keep a value. None deletes."""

    def set_if_absent(self, key: str, value: JSON) -> Awaitable[bool]:
        """Keep a value if there is none yet. Was it kept?"""

    def increment(self, key: str, by: float = 1) -> Awaitable[float]:
        """Add to a number, which begins at 0: the new one. Right however many events do it at once, and cheapest where the answer is not awaited."""

    def delete(self, key: str) -> Awaitable[None]:
        """Forget a value."""

    def del_(self, key: str) -> Awaitable[None]:
        """As `delete`."""

class Cache:
    """Values that may be forgotten, and lists of text, shared by all installs of the app in the project. Writes happen at once, also those of a hook that fails.

    Keys are text of at most 2,000 bytes. A value may have 1 MB.
    """

    def get(self, key: str, default: Any = None) -> Awaitable[Any]:
        """The value, or `default` if there is none."""

    def set(self, key: str, value: JSON, ttl: float | None = None) -> Awaitable[None]:
        """Keep a JSON value, for `ttl` seconds if given."""

    def incr(self, key: str) -> Awaitable[int]:
        """Add 1 to a number, which begins at 0: the new one."""

    def expire(self, key: str, seconds: float) -> Awaitable[bool]:
        """Forget a value or list after that time, after 0 seconds at once. Is there one?"""

    def lpush(self, key: str, values: str | list[Any]) -> Awaitable[int]:
        """Put text, or each element of a list (at most 1,000), in front of a list: its length."""

    def lrange(self, key: str, start: int, stop: int) -> Awaitable[list[str]]:
        """A list's elements from `start` to `stop`, both included; -1 is the last."""

    def llen(self, key: str) -> Awaitable[int]:
        """A list's length."""

    def lrem(self, key: str, count: int, value: str) -> Awaitable[int]:
        """Remove elements equal to `value`: the first `count`, with a negative `count` the last, with 0 all. How many were removed."""

    def lpop(self, key: str, count: int = 1) -> Awaitable[list[str]]:
        """Take the first `count` elements off a list."""

    def delete(self, key: str) -> Awaitable[None]:
        """Forget a value or list."""

    def del_(self, key: str) -> Awaitable[None]:
        """As `delete`."""

class Jobs:
    """The app's own jobs, by the names in its dict `jobs`: `meta.jobs.name(payload)`, or by item, and then when: `meta.jobs.name(payload).runIn(3, "minutes")`.

    Each is started once with the hook that asked for it, and not at all if that fails. An unknown name is an error at once. A payload may have 1 MB.
    """

    def __getattr__(self, name: str) -> MakesJob: ...
    def __getitem__(self, name: str) -> MakesJob: ...
    def __contains__(self, name: object) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...

class MakesJob(Protocol):
    def __call__(self, payload: JSON = None) -> Job: ...

class Job:
    """A job with its payload. It is started by one of these."""

    def runNow(self) -> Awaitable[None]:
        """As soon as there is room."""

    def runIn(self, number: float, unit: str) -> Awaitable[None]:
        """After that time: milliseconds, seconds, minutes, hours, days, weeks, months, quarters or years, singular or plural. Months, quarters and years go by the calendar."""

    def runAt(self, when: datetime | str) -> Awaitable[None]:
        """At that time, a datetime or ISO 8601 text; without an offset it is UTC. What is past is now."""

    def run_now(self) -> Awaitable[None]:
        """As `runNow`."""

    def run_in(self, number: float, unit: str) -> Awaitable[None]:
        """As `runIn`."""

    def run_at(self, when: datetime | str) -> Awaitable[None]:
        """As `runAt`."""

class Metrics:
    """What the app counts, by the names in its dict `metrics`, such as `metrics = {"rows": "sum", "largest": "max"}`: `meta.metrics.rows.increment(5)`."""

    def __getattr__(self, name: str) -> Metric: ...
    def __getitem__(self, name: str) -> Metric: ...
    def __contains__(self, name: object) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...

class Metric:
    """One of them. The verb must be the one of its kind, else it is a `TypeError`."""

    def increment(self, number: float) -> Awaitable[None]:
        """Of a `sum`: add a number, or take away a negative one."""

    def max(self, number: float) -> Awaitable[None]:
        """Of a `max`: keep the largest."""

    def min(self, number: float) -> Awaitable[None]:
        """Of a `min`: keep the smallest."""

class Geoip:
    """Where IP addresses are, as far as the operator has set a MaxMind database."""

    def locate(self, ip: str) -> Awaitable[dict[str, Any] | None]:
        """The database's record, such as `{"city": {"names": {"en": …}}, "country": {"iso_code": …}, "location": …}`, or None."""

class Utils:
    """What upstream calls utilities."""

    cursor: Cursor

class Cursor:
    """Numbers in the install's storage that only grow."""

    def init(self, key: str, value: float = 0) -> Awaitable[bool]:
        """Set it, if it is not set yet. Was it set?"""

    def increment(self, key: str, by: float = 1) -> Awaitable[float]:
        """Add to it: the new number."""

posthog: Posthog
console: Console

def fetch(url: str, options: FetchOptions | None = None, **named: Any) -> Awaitable[Response]:
    """Make an HTTP request. It starts when it is called, in a `def` hook too, and the hook ends when it has.

    Options, as a dict or by name: `method`, `headers`, `body` (text or bytes as they are, anything else as JSON), `json` (as JSON).
    Raises `FetchError` when there is no response, and for addresses that the app may not reach: private ones, and hosts that `egress` in
    its plugin.json leaves out.
    """

def sleep(seconds: float) -> Awaitable[None]:
    """Wait, up to an hour; other events go on meanwhile. The wait counts towards `hook_seconds`."""

def gather(*awaitables: Awaitable[Any]) -> Coroutine[Any, Any, list[Any]]:
    """Await host calls and coroutines of the app side by side: their results in order. When all have ended, the first error among them is raised."""
