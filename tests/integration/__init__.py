"""Tests of the whole, on a real Kafka and a real Redis."""
