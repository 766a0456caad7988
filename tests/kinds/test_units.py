from __future__ import annotations

import pytest

from hfray.kinds import units


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (units.count(1234567), "1,234,567"),
        (units.count(3.256), "3.26"),
        (units.count(123.6), "124"),
        (units.short(1500), "1.5k"),
        (units.short(2_000_000), "2M"),
        (units.short(0.25), "0.25"),
        (units.figure(0.87512), "0.8751"),
        (units.figure(2.0, 6), "2"),
        (units.figure(None), "n/a"),
        (units.flops(989.4e12), "989 TFLOP/s"),
        (units.flops(2.25e15), "2,250 TFLOP/s"),
        (units.flops(98.76e9), "98.8 GFLOP/s"),
        (units.percent(0, 10), "0 %"),
        (units.percent(1, 1000), "0.1 %"),
        (units.percent(1, 10**9), "<0.01 %"),
        (units.percent(10**9 - 1, 10**9), ">99.9 %"),
        (units.percent(1, 3), "33.3 %"),
        (units.percent(3, 3), "100 %"),
        (units.percent(0, 0), "0 %"),
        (units.size(90_000_000), "90 MB"),
        (units.size(12), "12 bytes"),
        (units.duration(0.32), "0.32 s"),
        (units.duration(59.97), "1m 00s"),
        (units.duration(75), "1m 15s"),
        (units.duration(7260), "2h 01m"),
        (units.duration(180_000), "2d 02h"),
        (units.clock(75), "1:15"),
        (units.clock(7265), "2:01:05"),
        (units.moment(0), "1970-01-01 00:00:00 UTC"),
        (units.plural(1, "row"), "1 row"),
        (units.plural(2000, "row"), "2,000 rows"),
        (units.printable("a\x1b[31mb\n\tc\u202e é卡"), "a\ufffd[31mb c\ufffd é卡"),
    ],
)
def test_units(got: str, wanted: str) -> None:
    assert got == wanted
