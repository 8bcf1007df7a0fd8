"""The page adds metrics to a broker that is there."""

from nbqueue.brokers.stub import StubBroker

broker = StubBroker()
