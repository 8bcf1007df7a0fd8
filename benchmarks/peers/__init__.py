"""One adapter a peer, all of one shape (`peer.py`), each run in a process of its own (`__main__.py`).

Those on Redis are in this folder, those over RabbitMQ and within one process in folders of their own. An
adapter is the class `Adapter` of the module that has the name of the peer.
"""

#: In the order of the tables. The names of the peers are here and nowhere else.
ON_REDIS = ["nbqueue", "dramatiq", "huey", "rq", "celery", "taskiq", "saq"]
ON_RABBITMQ = ["nbqueue", "dramatiq", "celery", "taskiq"]
IN_PROCESS = ["nbqueue", "threadpool", "dramatiq", "dask", "joblib"]
