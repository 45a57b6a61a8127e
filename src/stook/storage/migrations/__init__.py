"""How the renter's databases came to look as they do, one file per step; run by `stook.storage.database`.

A step that was released is never changed. `agent/` and `catalog/` each hold one line of steps.
"""
