"""Bytes to encrypted, coded, masked, equal-size, hashed shards and back from any k of them; no disk, no net, no clock.

Start with `geometry` (sizes), then `pipeline` (seal and open).
"""
