"""Stook: encrypted, erasure-coded storage on other people's disks, under signed contracts.

Start reading in `docs/architecture.md`; each package's docstring says what it promises and what it refuses.
"""

__version__ = "0.1.0"
