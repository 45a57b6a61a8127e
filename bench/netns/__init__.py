"""Hosts in network namespaces of their own, with delay and loss between them, and the demo on them."""
