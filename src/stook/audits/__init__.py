"""Make challenges, prove possession, judge a proof to a verdict, and keep what both signed about it.

Start with `challenge` (what is asked), then `proof` (`prove` and `verify`), `receipt` and `evidence` (what remains).
"""
