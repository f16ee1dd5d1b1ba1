"""Tests against a real RabbitMQ: scenarios run on each reactor, and the private node they use."""
