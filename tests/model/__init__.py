"""Random programs against the broker in memory, and an oracle that looks at what they have seen."""
