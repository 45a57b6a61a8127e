"""A real network in one process in virtual time, with lossy links and dishonest peers; ships with the package.

Start with `testnet`: N farmers and a renter in one line of a test. `loop` is the virtual time under it, `network` the
links, `adversaries` the unpleasant characters. Not a line of farmer, renter or wire is replaced: what runs here is what
runs on sockets, over `stook.wire.memory` and the memory stores.
"""
