"""Deliver one signed, bounded request or byte stream to a contact; give back the reply or a typed failure.

Knows no method's meaning. Start with `session` (the protocol, no I/O), then `endpoint` (pool, dispatch, deadlines).
"""
