"""Find other nodes, and keep small records for one another. Start with `ports`; `service` does it, the rest decides."""
