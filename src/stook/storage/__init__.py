"""Keep shards, contracts and metadata durably behind small ports; decides nothing about them.

Start with `ports`, which states the promises; every adapter passes one conformance suite.
"""
