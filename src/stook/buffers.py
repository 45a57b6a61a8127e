"""Large memory that is made once and used again."""

from __future__ import annotations

import mmap


def reused_memory(size_bytes: int) -> memoryview:
    """Zeroed memory that begins on a page and takes room only where it is touched.

    Where the system offers huge pages it is asked for them: bytes that stream through thousands of small ones spend
    some percent of a transfer looking those up.
    """
    # Private, because what may be shared with other processes gets small pages only.
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


def give_up(memory: memoryview) -> None:
    """Let go of the pages of `reused_memory` now, not when the last view of it is collected.

    A view that an exception's traceback keeps alive would otherwise keep the pages too. What lies in them is lost.
    """
    whole = memory.obj
    if isinstance(whole, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        whole.madvise(mmap.MADV_DONTNEED)
