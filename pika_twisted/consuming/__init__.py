"""`consume()`: handlers for a queue's messages, attempts that end, delays between them."""
