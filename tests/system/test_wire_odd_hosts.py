"""Hosts that a contact may name and that no system even tries to look up are unreachable, not a crash."""

import asyncio

import pytest

from stook.codec import decode, encode
from stook.errors import EnvironmentFault, UnreachableError
from stook.identity.contact import Address, AddressKind
from stook.wire.tcp import TcpCarrier

pytestmark = pytest.mark.system
HOSTS = [".", "...", "a..b", ".a", "x" * 255, "x" * 64 + ".example"]


@pytest.mark.parametrize("host", HOSTS)
def test_calling_and_listening(host):
    assert decode(Address, encode(Address(AddressKind.DIRECT, host, 1))).host == host

    async def story():
        carrier = TcpCarrier()
        with pytest.raises(UnreachableError):
            await carrier.connect(host, 1, lambda connection: None)
        with pytest.raises(EnvironmentFault):
            await carrier.listen(host, 0, lambda connection: None)

    asyncio.run(story())
