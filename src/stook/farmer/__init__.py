"""Accept what it can afford, hold it, hand it back.

Start with `admission` (which claims to accept), then `handlers` (what each method does), then `service` (the loops).
"""
