"""HTTP in and out; translates and holds no rule. Still empty."""
