"""How cheap pika_twisted is, measured beside pika and other AMQP clients.

``python -m benchmarks`` runs everything, ``python -m benchmarks --help`` lists the single cases,
and ``python -m benchmarks.demo`` shows the main difference in a few seconds. No broker is needed:
an embedded peer on the loopback interface (:mod:`benchmarks.peer`) plays its part unless a URL is
given.
"""
