"""Place, track and fetch objects: `agent` without content keys, `client` with them.

Start with `planner` (who gets which shard), then `client.put` and `client.get`.
"""
