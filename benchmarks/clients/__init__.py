"""One module per client library; each has ``run(spec)`` and does the same work as the others.

The measured part of a consumer begins before basic.consume and ends when the last message was
handed out and, where messages are acked, when the peer has answered a basic.qos sent after the
last ack: then the cost of writing the acks is in. A publisher ends with the same kind of answer.
Nothing is added per message beyond what a user of that library has to write.
"""
