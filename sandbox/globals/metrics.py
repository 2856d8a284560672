"""`meta.metrics`: what an app counts, by the names that it declares in `metrics`."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from sandbox import codec
from sandbox.facade import Facade
from sandbox.globals.arguments import check_number
from sandbox.globals.named import NamedFacade
from sandbox.invocation import HostCall
from sandbox.wire import METRIC_KINDS

MAX_METRICS: Final = 100
_NAME_LENGTH: Final = 100
_VERBS: Final = {"sum": "increment", "max": "max", "min": "min"}


class Metrics(NamedFacade):
    """`meta.metrics` of one install."""

    __slots__ = ()

    _kind: ClassVar[str] = "metric"

    def _member(self, name: str) -> Metric:
        return Metric(self, name, self._names[name])


class Metric(Facade):
    """One of an app's metrics: a sum, a maximum or a minimum."""

    __slots__ = ("_kind", "_metrics", "_name")

    _kind: str
    _metrics: Metrics
    _name: str

    def __init__(self, metrics: Metrics, name: str, kind: str) -> None:
        object.__setattr__(self, "_metrics", metrics)
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_kind", kind)

    def increment(self, number: float) -> HostCall:
        """Add to a `sum`; a negative number takes away."""
        return self._note("increment", number)

    def max(self, number: float) -> HostCall:
        """A number of which a `max` keeps the largest."""
        return self._note("max", number)

    def min(self, number: float) -> HostCall:
        """A number of which a `min` keeps the smallest."""
        return self._note("min", number)

    def __repr__(self) -> str:
        return f"<metric {self._name!r}>"

    def _note(self, verb: str, number: Any) -> HostCall:
        what, right = f"metrics.{self._name}.{verb}", _VERBS[self._kind]
        if verb != right:
            raise TypeError(f"{what}: the metric is declared as {self._kind!r}: call {right}(number)")
        check_number(what, "number", number)
        metrics = self._metrics
        return metrics._context.start(  # noqa: SLF001 - of this module
            metrics._install,  # noqa: SLF001
            "metrics",
            [self._name, verb, number],
            what=what,
        )


def find_metrics(declared: object) -> dict[str, str]:
    """The metrics that a module declares in a dict `metrics`, as name to sum, max or min. Raises ValueError.

    A dict in which no value is text is a variable of the app's own that happens to have that name.
    """
    if type(declared) is not dict or not any(type(kind) is str for kind in declared.values()):
        return {}
    if len(declared) > MAX_METRICS:
        raise ValueError(f"metrics: an app has at most {MAX_METRICS}")
    found: dict[str, str] = {}
    for name, kind in declared.items():
        if type(name) is not str or not 0 < len(name) <= _NAME_LENGTH:
            raise ValueError(f"metrics: a name must be text of at most {_NAME_LENGTH} characters")
        lowered = kind.lower() if type(kind) is str else ""
        if lowered not in METRIC_KINDS:
            raise ValueError(f"metrics: {name!r} must be one of {', '.join(METRIC_KINDS)}")
        found[codec.replace_surrogates(name)] = lowered
    return found
