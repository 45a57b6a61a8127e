"""Steps of `catalog.db`."""
