"""Memory that is used again, and let go of while others still look at it."""

from stook.buffers import give_up, reused_memory


def test_memory_is_zeroed_and_writable():
    memory = reused_memory(100_000)
    assert (len(memory), memory.readonly, any(memory)) == (100_000, False, False)


def test_what_is_given_up_is_lost_and_harmless_to_look_at():
    memory = reused_memory(1 << 20)
    part = memory[5000:6000]
    part[:] = b"x" * 1000
    give_up(part)
    assert not any(memory)
    part[:] = b"y" * 1000
    assert bytes(part) == b"y" * 1000


def test_other_memory_is_left_alone():
    memory = memoryview(bytearray(b"kept"))
    give_up(memory)
    assert bytes(memory) == b"kept"
