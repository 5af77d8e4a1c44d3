"""The three ways to deduct stock, compared by measurement: the same crowd buys from each over real HTTP.

`run.run` is the way in. Order-first and pay-first are small servers of their own
(``python -m ticketrush.strategies``); reserve-first is the product as it is served.
"""
