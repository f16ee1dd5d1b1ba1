"""Coverage-guided fuzzing of the compiled modules: `make fuzz`, or `python -m tests.fuzz`.

`targets.py` and `sessions.py` say what has to hold for any octets. libFuzzer calls them through
`driver.c`; the unit suite calls them for every seed in `corpus/` (tests/unit/test_fuzz_seeds.py).
"""
