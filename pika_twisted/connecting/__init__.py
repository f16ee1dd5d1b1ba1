"""`connect()`: where to, how encrypted, and why it failed."""
