"""The adapters over RabbitMQ, of the same shape as those over Redis beside which they stand."""
