"""How often a worker tells of its progress. The counter itself: test_pool.py and test_watch.py."""

from __future__ import annotations

from hfray.kinds.counter import TICK_EVERY_S, Ticks


def test_ticks_are_added_up_between_sendings_and_none_is_lost() -> None:
    now, sent = [0.0], list[tuple[int, int, int]]()
    ticks = Ticks(lambda *sums: sent.append(sums), lambda: now[0])
    ticks.add(1, 0, 10)
    assert sent == [(1, 0, 10)]
    for _ in range(100):
        ticks.add(2, 1, 20)
    assert len(sent) == 1
    now[0] += TICK_EVERY_S
    ticks.add(2, 0, 20)
    assert sent[1:] == [(202, 100, 2020)]
    ticks.add(0, 0, 5)
    ticks.flush()
    ticks.flush()
    assert sent[2:] == [(0, 0, 5)]
