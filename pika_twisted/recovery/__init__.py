"""`RecoveringService`: a connection that comes back, with all that was on it."""
