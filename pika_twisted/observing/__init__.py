"""Tracing (OpenTelemetry) and metrics (Prometheus); each module needs an extra of its own."""
