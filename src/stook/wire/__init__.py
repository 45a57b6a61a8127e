"""Deliver one signed, bounded request or byte stream to a node and give back the reply or a typed failure.

This room knows no method's meaning. Start with `session` (pure: bytes in, events out), then `endpoint` (the door).
`carrier` is the port below, with the adapters `tcp` and `memory`; `transfer` moves verified shards over an exchange.
"""
