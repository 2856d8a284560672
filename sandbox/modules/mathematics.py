"""math, statistics, random, decimal."""

# ruff: noqa: SIM905 - word lists read better than columns of quoted names

from __future__ import annotations

import decimal
import math
import random
import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sandbox.facade import facade

_SIZE_LIMIT = 10_000
"""Largest n of factorial, comb and perm: they run in C, where the timer cannot stop them."""
_PRECISION_LIMIT = 1000
"""Digits of a decimal context; arithmetic on more takes seconds in C."""
_RANDOM_BITS_LIMIT = 1_000_000


def _small(function: Callable[..., int]) -> Callable[..., int]:
    def bounded(*args: Any) -> int:
        if any(not isinstance(arg, int) or arg > _SIZE_LIMIT for arg in args if arg is not None):
            raise ValueError(f"arguments are whole numbers up to {_SIZE_LIMIT}")
        return function(*args)

    return bounded


MATH: Mapping[str, object] = {
    name: getattr(math, name)
    for name in """
    acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh degrees dist e erf erfc exp exp2 expm1 fabs floor fmod frexp
    fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt lcm ldexp lgamma log log10 log1p log2 modf nan nextafter pi pow prod
    radians remainder sin sinh sqrt tan tanh tau trunc ulp
    """.split()
} | {"factorial": _small(math.factorial), "comb": _small(math.comb), "perm": _small(math.perm)}

# Not NormalDist and the modules that statistics re-exports.
STATISTICS: Mapping[str, object] = {
    name: getattr(statistics, name)
    for name in """
    StatisticsError correlation covariance fmean geometric_mean harmonic_mean linear_regression mean median median_grouped median_high
    median_low mode multimode pstdev pvariance quantiles stdev variance
    """.split()
}


# random: one generator an install, so that a seed set by one is not felt by another.


def _generator_members(generator: random.Random) -> dict[str, object]:
    members: dict[str, object] = {
        name: getattr(generator, name)
        for name in """
        betavariate choice choices expovariate gammavariate gauss lognormvariate normalvariate paretovariate randint random randrange
        sample shuffle triangular uniform vonmisesvariate weibullvariate
        """.split()
    }

    def seed(a: float | str | bytes | None = None) -> None:
        if type(a) not in (int, float, str, bytes, type(None)):
            raise TypeError("a seed is a number, str, bytes or None")
        generator.seed(a)

    def getrandbits(k: int) -> int:
        if type(k) is not int or k > _RANDOM_BITS_LIMIT:  # an object's comparison may say what its __index__ does not
            raise ValueError(f"at most {_RANDOM_BITS_LIMIT} bits")
        return generator.getrandbits(k)

    def randbytes(n: int) -> bytes:
        if type(n) is not int or n * 8 > _RANDOM_BITS_LIMIT:
            raise ValueError(f"at most {_RANDOM_BITS_LIMIT // 8} bytes")
        return generator.randbytes(n)

    return members | {"seed": seed, "getrandbits": getrandbits, "randbytes": randbytes}


def random_members() -> dict[str, object]:
    """The `random` of one install. `Random(x)` is a facade too, and no class."""

    def make(x: float | str | bytes | None = None) -> object:
        made = facade("Random", _generator_members(random.Random()))  # noqa: S311 - no secrets are made here
        made.seed(x)  # type: ignore[attr-defined]
        return made

    return _generator_members(random.Random()) | {"Random": make}  # noqa: S311


# decimal. Contexts are mutable and the current one is the thread's, so apps get neither: they name precision and rounding.

_ROUNDINGS = (
    "ROUND_CEILING", "ROUND_DOWN", "ROUND_FLOOR", "ROUND_HALF_DOWN", "ROUND_HALF_EVEN", "ROUND_HALF_UP", "ROUND_UP", "ROUND_05UP",
)  # fmt: skip
_SIGNALS = (
    "Clamped", "DecimalException", "DivisionByZero", "FloatOperation", "Inexact", "InvalidOperation", "Overflow", "Rounded",
    "Subnormal", "Underflow",
)  # fmt: skip


class _LocalContext:
    """`with localcontext(prec=…, rounding=…) as context:`; the context can be read, not changed."""

    __slots__ = ("_context", "_entered")

    def __init__(self, context: decimal.Context) -> None:
        self._context = context
        self._entered: list[tuple[decimal.Context, decimal.Context]] = []
        """The context outside and the one inside, of each block that is open"""

    def __enter__(self) -> _Context:
        inside = self._context.copy()
        self._entered.append((decimal.getcontext(), inside))
        decimal.setcontext(inside)
        return _shown(self._context)

    def __exit__(self, *_: object) -> None:
        outside, inside = self._entered.pop()
        # A generator that was forgotten inside the block is closed in whichever app's time, which has a context of its own.
        if decimal.getcontext() is inside:
            decimal.setcontext(outside)


class _Context(NamedTuple):
    prec: int
    rounding: str


def _shown(context: decimal.Context) -> _Context:
    return _Context(context.prec, context.rounding)


def _localcontext(*, prec: int | None = None, rounding: str | None = None) -> _LocalContext:
    context = decimal.getcontext().copy()
    if prec is not None:
        if type(prec) is not int or not 1 <= prec <= _PRECISION_LIMIT:
            raise ValueError(f"prec is a whole number from 1 to {_PRECISION_LIMIT}")
        context.prec = prec
    if rounding is not None:
        if type(rounding) is not str:
            raise TypeError("rounding is one of decimal.ROUND_…")
        context.rounding = rounding
    return _LocalContext(context)


def _getcontext() -> _Context:
    return _shown(decimal.getcontext())


DECIMAL: Mapping[str, object] = (
    {"Decimal": decimal.Decimal, "localcontext": _localcontext, "getcontext": _getcontext}
    | {name: getattr(decimal, name) for name in _ROUNDINGS}
    | {name: getattr(decimal, name) for name in _SIGNALS}
)
