"""Followers get every entry, or are told how many they missed; nobody waits for them."""

from __future__ import annotations

from pathlib import Path

from plugin_server.admin.tail import QUEUE_ENTRIES, TailHub, tail_socket_path


def test_nothing_is_kept_while_nobody_follows():
    hub = TailHub()
    assert not hub.following
    hub.publish({"n": 1})
    queue = hub.follow()
    assert hub.following
    assert queue.empty()
    hub.unfollow(queue)
    assert not hub.following


def test_each_follower_gets_each_entry_and_the_slow_one_misses_some():
    hub = TailHub()
    slow, quick = hub.follow(), hub.follow()
    for number in range(QUEUE_ENTRIES + 5):
        hub.publish({"n": number})
        assert quick.get_nowait() == {"n": number}
    assert (hub.take_missed(slow), hub.take_missed(quick)) == (5, 0)
    assert hub.take_missed(slow) == 0
    assert slow.qsize() == QUEUE_ENTRIES


def test_the_socket_is_in_the_data_directory_unless_its_path_is_too_long():
    assert tail_socket_path(Path("/data")) == Path("/data/tail.sock")
    long = tail_socket_path(Path("/" + "x" * 200))
    assert len(str(long)) <= 100
    assert long == tail_socket_path(Path("/" + "x" * 200))
    assert long != tail_socket_path(Path("/" + "y" * 200))
