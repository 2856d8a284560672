from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plugin_server.model.token_bucket import TokenBucket


def test_a_full_bucket_gives_what_it_holds_and_refills_with_time():
    bucket = TokenBucket(2, 0.5)
    assert [bucket.take(10), bucket.take(10), bucket.take(10)] == [True, True, False]
    assert [bucket.take(11), bucket.take(12), bucket.take(12)] == [False, True, False]


def test_a_clock_that_goes_back_gives_nothing_twice():
    bucket = TokenBucket(1, 1)
    assert [bucket.take(100), bucket.take(50), bucket.take(100)] == [True, False, False]
    assert bucket.take(101)


def test_a_bucket_without_room_gives_nothing():
    assert not TokenBucket(0, 100).take(1_000)


@given(
    st.integers(0, 20),
    st.integers(0, 10),
    st.lists(st.integers(0, 100), max_size=60),
)
def test_never_more_than_burst_and_refill(capacity, per_second, steps):
    bucket = TokenBucket(capacity, per_second)
    now = taken = 0
    for step in steps:
        now += step % 3
        taken += bucket.take(now)
    assert taken <= capacity + per_second * now
