"""The codec in plain Python: the oracle of the tests, and what PyPy runs."""
