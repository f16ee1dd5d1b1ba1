"""pika's connection and channel state machines; the only folder that touches pika's private names."""
