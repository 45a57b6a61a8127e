"""The pages about the wire say what the code does."""

import re
from pathlib import Path

from stook.errors import ReasonCode
from stook.identity.envelope import ReplayWindow
from stook.wire import frames
from stook.wire.exchange import MAX_PAYLOAD_BYTES
from stook.wire.flow import Flow, FlowState
from stook.wire.frames import FrameType
from stook.wire.hello import Hello, Role
from stook.wire.limits import Limits
from stook.wire.link import LINGER_SECONDS
from stook.wire.reader import SCRATCH_BYTES
from stook.wire.session import MAX_REPLIES, SessionState

PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol"
WIRE = (PROTOCOL / "wire.md").read_text()
SESSION = (PROTOCOL / "session.md").read_text()
TRANSFER = (PROTOCOL / "transfer.md").read_text()


def test_the_table_of_frames():
    rows = re.findall(r"^\| (\d) \| ([A-Z]+) \| (0|yes) \| .+ \| (\d+)(?: to (\d+))? \|$", WIRE, re.M)
    written = {
        FrameType[name]: (int(number), exchange, int(low), int(high or low))
        for number, name, exchange, low, high in rows
    }
    assert set(written) == set(FrameType)
    for kind, (number, exchange, low, high) in written.items():
        assert kind.value == number
        assert frames._BODY_BOUNDS[kind] == (low, high)
        assert (exchange == "0") == (kind in frames._OF_SESSION)


def test_the_fields_of_the_hello():
    assert re.findall(r"^\| (\d+) \| `(\w+)`", SESSION, re.M)[: len(Hello.__struct_fields__)] == [
        (str(number), name) for number, name in enumerate(Hello.__struct_fields__)
    ]
    assert (Role.INITIATOR, Role.RESPONDER) == (1, 2)


def drawn(states):
    """Arrows between the given states, from any diagram on the page."""
    names = {state.name for state in states}
    arrows = re.findall(r"^([A-Z_]+) -- (.+) --> ([A-Z_]+)$", SESSION, re.M)
    return {(a, text, b) for a, text, b in arrows if a in names and b in names}


def test_the_diagram_of_an_exchange_is_the_machine():
    acts = {"we say END or RESET": Flow.we_finish, "peer says END or RESET": Flow.peer_finishes}
    found = set()
    for state in FlowState:
        for text, act in acts.items():
            flow = Flow(1, mine=True, method="GET", request_digest=b"")
            flow.state = state
            allowed = flow.we_may_send if act is Flow.we_finish else flow.peer_may_send
            if allowed:
                act(flow)
                found.add((state.name, text, flow.state.name))
    assert drawn(FlowState) == found


def test_the_diagram_of_a_session_names_every_state():
    arrows = drawn(SessionState)
    assert {state for a, _, b in arrows for state in (a, b)} == {state.name for state in SessionState}
    assert len(arrows) == 5


def test_every_reason_code_named_is_one():
    for page in (WIRE, SESSION, TRANSFER):
        for name in re.findall(r"^\| .* \| ([A-Z]{3,}_[A-Z_]+) \|$", page, re.M):
            assert name in ReasonCode.__members__


def bound(what):
    (found,) = re.findall(rf"^\| {re.escape(what)} \| (.+) \| [a-z ]+ \|$", WIRE, re.M)
    return found


def test_the_table_of_bounds():
    limits = Limits()
    assert bound("raw bytes sent before any WINDOW, per exchange") == str(frames.INITIAL_CREDIT_BYTES)
    assert bound("credit outstanding, per exchange") == str(frames.MAX_CREDIT_BYTES)
    assert bound("signed replies of one exchange") == str(MAX_REPLIES)
    assert bound("message ids remembered per session").startswith(f"{ReplayWindow().capacity};")
    assert f"{limits.max_exchanges_per_session} by default" in bound("exchanges that a peer may have open")
    assert bound("request payloads in the hands of handlers, per session").startswith(
        f"{limits.max_request_bytes_per_session >> 20} MiB"
    )
    assert bound("bytes written that the peer does not read").startswith(f"{limits.max_backlog_bytes >> 20} MiB")
    assert bound("sessions; handshakes not finished; sessions per node id") == (
        f"{limits.max_sessions}; {limits.max_handshakes}; {limits.max_sessions_per_peer}"
    )
    assert bound("TLS and hello together") == f"{limits.handshake_seconds:g} s"
    assert bound("no exchange on a session").startswith(f"{limits.idle_seconds:g} s")
    slow = f"{limits.low_speed_bytes_per_second} bytes/s over {limits.low_speed_seconds:g} s"
    assert bound(f"raw bytes of an exchange slower than {slow}") == "RESET TOO_SLOW"
    assert MAX_PAYLOAD_BYTES == 1 << 20
    assert f"{SCRATCH_BYTES >> 10} KiB of scratch" in WIRE
    assert f"up to {LINGER_SECONDS:g} s" in SESSION


def test_the_numbers_of_transfers():
    assert f"**{frames.INITIAL_CREDIT_BYTES} bytes**" in TRANSFER
    assert str(frames.INITIAL_CREDIT_BYTES // 2) in TRANSFER
