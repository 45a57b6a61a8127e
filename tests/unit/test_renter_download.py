"""Which segments a batch of ranges needs, in which waves, and what is cut from each."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stook.errors import NotFoundError
from stook.ids import SegmentId
from stook.renter.download import Target, jobs_of, locate_range, waves
from stook.renter.files import BytesSink
from stook.shards.pointer import POINTER_VERSION, Extent, ObjectRecord


def record(*extents: tuple[int, int, int]) -> ObjectRecord:
    """Of (segment number, offset, length)."""
    parts = tuple(Extent(SegmentId(bytes([number]) * 16), at, size, bytes(32)) for number, at, size in extents)
    return ObjectRecord(POINTER_VERSION, sum(size for _, _, size in extents), bytes(32), parts, 0, 0, ())


def target(of: ObjectRecord, begin: int, end: int) -> Target:
    return Target("b/x", of, BytesSink(), begin, end)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_byte_of_a_range_is_cut_from_its_place(data: st.DataObject):
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    segments = {number: data.draw(st.binary(min_size=20, max_size=20)) for number in range(3)}
    extents = [(data.draw(st.integers(0, 2)), data.draw(st.integers(0, 20 - size)), size) for size in lengths]
    of = record(*extents)
    whole = b"".join(segments[number][at : at + size] for number, at, size in extents)
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, len(whole)))
    wanted = target(of, begin, end)
    jobs = jobs_of([wanted])
    got, written = bytearray(end - begin), 0
    for job in jobs:
        content = segments[job.segment_id[0]]
        assert job.begin == min(part.offset for part in job.parts)
        for part in job.parts:
            assert job.begin <= part.offset
            assert part.offset + part.length <= job.end
            got[part.at : part.at + part.length] = content[part.offset : part.offset + part.length]
            written += part.length
    assert (bytes(got), written) == (whole[begin:end], end - begin), "each byte exactly once"
    assert wanted.pieces_left == sum(len(job.parts) for job in jobs)
    assert len({job.segment_id for job in jobs}) == len(jobs), "a segment is fetched once"


def test_objects_of_one_bundle_share_a_job():
    jobs = jobs_of([target(record((1, 0, 5)), 0, 5), target(record((1, 5, 7)), 0, 7), target(record((2, 0, 1)), 0, 1)])
    assert [(job.begin, job.end, len(job.parts)) for job in jobs] == [(0, 12, 2), (0, 1, 1)]


def test_an_empty_range_needs_nothing():
    assert jobs_of([target(record((1, 0, 5)), 3, 3), target(record(), 0, 0)]) == []


def test_a_wave_leaves_few_sinks_half_written():
    one, two = record((1, 0, 5)), record((1, 0, 5), (2, 0, 5))
    crowd = [target(each, 0, each.size) for each in [one] * 10 + [two] * 5 + [one] + [two] * 2]
    cut = [len(wave) for wave in waves(crowd, most=3)]
    assert cut == [13, 4, 1]
    assert sum(cut) == len(crowd)
    assert [list(wave) for wave in waves([], most=3)] == [[]]


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        (0, None, (0, 10)),
        (0, 10, (0, 10)),
        (0, 99, (0, 10)),
        (10, None, (10, 10)),
        (3, 3, (3, 3)),
        (9, 10, (9, 10)),
    ],
)
def test_a_range_is_cut_at_the_end(begin: int, end: int | None, expected: tuple[int, int]):
    assert locate_range("b/x", 10, begin, end) == expected


@pytest.mark.parametrize(("begin", "end"), [(11, None), (-1, None), (5, 4), (0, -1)])
def test_a_range_outside_is_refused_with_the_size(begin: int, end: int | None):
    with pytest.raises(NotFoundError, match="b/x has 10 bytes"):
        locate_range("b/x", 10, begin, end)
