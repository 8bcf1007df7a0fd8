"""The adapters over RabbitMQ, of the same shape as those over Redis beside which they stand."""

#: In the order of the tables.
NAMES = ["nbqueue", "dramatiq", "celery", "taskiq"]
