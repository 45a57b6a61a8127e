"""Make challenges, prove possession, judge a proof to a verdict, and say what a history of verdicts is worth.

Start with `challenge` (what is asked), then `proof` (`prove` and `verify`), `receipt` and `evidence` (what remains);
then `schedule` (who is asked when), `containment` (what silence means) and `score` (what a history is worth).
"""
