"""Scenarios whose answers are the same on RabbitMQ and on `pika_twisted.testing`.

A scenario is a function that is given a `World` and returns what a client saw, as plain values. It
knows neither Twisted nor this package: a client of its own (`client.py`) speaks to whatever there
is behind a wire (`wires.py`). `answers.json` has what RabbitMQ 3.10, 4.0 and 4.3 said;
`python -m tests.support.conformance URL` asks a broker and writes it down.
"""
