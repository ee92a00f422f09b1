"""Shared memory: sealed, sized in pages, without a name, gone with its last view."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
from pathlib import Path

import pytest
from acap_runtime import DeviceError
from acap_runtime.link.segment import ALIGNMENT, Segment, layout


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def mapped_segments() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:acap-runtime")


@pytest.mark.parametrize("wanted", [0, 1, mmap.PAGESIZE, mmap.PAGESIZE + 1, 6_220_800])
def test_a_segment_has_the_fewest_whole_pages_that_hold_what_was_asked_for(wanted: int) -> None:
    segment = Segment.create(wanted)
    assert segment.size % mmap.PAGESIZE == 0
    assert wanted <= segment.size < wanted + mmap.PAGESIZE + (wanted == 0)
    assert segment.view.nbytes == segment.size
    assert not any(segment.view)
    segment.close_descriptor()


def test_a_segment_can_neither_shrink_nor_grow_nor_lose_its_seals() -> None:
    segment = Segment.create(mmap.PAGESIZE)
    for size in (0, 1, 2 * mmap.PAGESIZE):
        with pytest.raises(PermissionError):
            os.ftruncate(segment.descriptor, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(segment.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    segment.close_descriptor()


def test_both_sides_see_what_either_writes_also_after_their_descriptors_are_closed() -> None:
    ours = Segment.create(100)
    theirs = Segment.adopt(os.dup(ours.descriptor))
    ours.close_descriptor()
    ours.view[:5] = b"there"
    theirs.view[50:54] = b"back"
    assert bytes(theirs.view[:5]) == b"there"
    assert bytes(ours.view[50:54]) == b"back"
    assert ours.size == theirs.size


@pytest.mark.parametrize("seals", [0, fcntl.F_SEAL_GROW, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL])
def test_memory_that_could_shrink_under_our_feet_is_not_adopted(seals: int) -> None:
    before = open_descriptors()
    descriptor = os.memfd_create("half sealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, mmap.PAGESIZE)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    with pytest.raises(DeviceError, match="seals"):
        Segment.adopt(descriptor)
    assert open_descriptors() == before


def test_a_file_on_disk_is_not_adopted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(mmap.PAGESIZE))
    before = open_descriptors()
    with pytest.raises((DeviceError, OSError)):
        Segment.adopt(os.open(path, os.O_RDWR))
    assert open_descriptors() == before


def test_memory_and_descriptors_are_given_back_with_the_last_view() -> None:
    gc.collect()
    descriptors, mapped = open_descriptors(), mapped_segments()
    for _ in range(50):
        segment = Segment.create(100_000)
        adopted = Segment.adopt(os.dup(segment.descriptor))
        segment.close_descriptor()
        last = adopted.view[10:20]
        del segment, adopted
        assert mapped_segments() == mapped + 1
        last[0] = 1
        del last
    # An earlier test's may be closed meanwhile.
    assert open_descriptors() <= descriptors
    assert mapped_segments() == mapped


def test_more_memory_than_there_is_is_an_error_that_leaves_nothing_open() -> None:
    before = open_descriptors()
    with pytest.raises(OSError, match=r"\[Errno"):
        Segment.create(1 << 62)
    assert open_descriptors() == before


def test_a_segment_has_no_name_in_dev_shm() -> None:
    segment = Segment.create(100)
    assert str(Path(f"/proc/self/fd/{segment.descriptor}").readlink()).startswith("/memfd:")
    segment.close_descriptor()


def test_blocks_are_aligned_in_order_and_do_not_overlap() -> None:
    sizes = [1, 0, 64, 65, 1_000_003, 7]
    offsets, end = layout(sizes, 5)
    ends = [offset + size for offset, size in zip(offsets, sizes, strict=True)]
    assert all(offset % ALIGNMENT == 0 for offset in offsets)
    assert offsets[0] >= 5
    assert all(before <= after for before, after in zip(ends, offsets[1:], strict=False))
    assert end == ends[-1]
    assert end < 5 + sum(sizes) + ALIGNMENT * len(sizes)


def test_no_blocks_take_no_room() -> None:
    assert layout([]) == ([], 0)
    assert layout([], 7) == ([], 7)
