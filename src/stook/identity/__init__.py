"""Given a key, a message and a time, say who signed what and whether it is fresh; nothing else touches private keys.

Start with `keys` (phrase, derivation, signatures), then `envelope` (the signed message and its ordered checks).
"""
