"""`TwistedChannel` and what belongs to it: consumers, queues, acks, confirms."""
