"""Middle floor: from Kafka to the ledger and back."""
