"""What the parties agreed, whether both signed, and which step is legal next; offers and prices are arithmetic.

Start with `contract` (the terms), then `lifecycle` (the state machine) and `messages` (what travels).
"""
