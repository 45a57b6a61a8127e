"""The contracts of settlement EVM: sources in Vyper, and `artifacts.json`, compiled from them by ``make contracts``."""
