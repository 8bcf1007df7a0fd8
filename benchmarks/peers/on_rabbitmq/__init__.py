"""The adapters over RabbitMQ, of the same shape as those over Redis beside which they stand.

Each takes a third argument: whether sending waits for the server's confirmation.
"""

#: In the order of the tables.
NAMES = ["nbqueue", "dramatiq", "celery", "taskiq"]
