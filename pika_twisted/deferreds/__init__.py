"""The Deferreds made for each message, and groups that wait for the same thing."""
