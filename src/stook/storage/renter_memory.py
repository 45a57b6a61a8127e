"""The renter's stores in memory, for the simulator and for tests: both halves under one roof."""

from stook.storage.memory_agent_store import MemoryAgentStore
from stook.storage.memory_catalog import MemoryCatalog

__all__ = ["MemoryAgentStore", "MemoryCatalog"]
