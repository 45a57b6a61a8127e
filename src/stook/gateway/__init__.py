"""HTTP in and out: translates, and holds no rule of storage."""
