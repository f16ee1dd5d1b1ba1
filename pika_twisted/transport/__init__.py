"""Between the transport and the codec: sockets, reading, writing, pausing."""
