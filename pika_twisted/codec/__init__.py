"""AMQP 0-9-1 on the wire: the compiled codec, its reference in Python, and the choice."""
