"""A real network in one process in virtual time, with lossy links and dishonest peers; ships with the package.

Start with `testnet`: a network of N farmers and a renter in one line of a test.
"""
