"""Closed form, dispatcher's count and executed FLOPs compared; formulas for what a chip executes."""
