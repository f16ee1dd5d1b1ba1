"""pika's state machines of connection and channel: no other folder touches pika's private names."""
