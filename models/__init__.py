"""Ground floor: what the service knows. Arrays and numbers; no Kafka, no clock."""
