"""Steps of `agent.db`."""
