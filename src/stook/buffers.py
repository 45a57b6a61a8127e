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
