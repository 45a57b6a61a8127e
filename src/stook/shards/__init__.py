"""Bytes to encrypted, coded, masked, equal-size, hashed shards and back from any k of them; no disk, no net, no clock.

Start with `geometry` (sizes), then `pipeline` (seal and unseal, with content keys) and `rebuild` (repair, without any).
What no caller without content keys may reach is `cipher`, and `pipeline` which uses it; an import contract keeps this.
"""
