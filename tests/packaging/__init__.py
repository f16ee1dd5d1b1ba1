"""Tests of the build and of the workflows: they need the checkout."""
