"""Make challenges, prove possession, judge a proof to a verdict. Still empty."""
