"""Every attack of the white paper's section 5, and those that audits must bear, as programs that are run and lose.

Start with `catalogue`. Each attack has a goal and a bound, written down before it is run; it counts as caught when it
does not reach the goal within the bound (`docs/attacks.md`).
"""
