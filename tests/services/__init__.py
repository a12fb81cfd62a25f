"""How the real servers of the tests start and stop: Apache Kafka, Redis and Valkey."""
