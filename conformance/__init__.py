"""Real S3 clients against a demo network: `make conformance`."""
