"""What a producer that has sent a million messages keeps of them, peer beside peer."""

from __future__ import annotations

from benchmarks.measurements.columns import PRODUCER_CPU, SERVER_CPU, Column
from benchmarks.measurements.measurement import WARM_UP, Bench, Measurement, Numbers

#: What those are cut to that send one by one.
ONE_BY_ONE = 10


def memory(bench: Bench, peer: str, count: int) -> Numbers:
    """Batched where there is an API for it; else a tenth, one by one."""
    with bench.producer(peer, bench.setup()) as producer:
        sent = count if producer.hello["bulk"] else count // ONE_BY_ONE
        producer.call("fill", WARM_UP)
        before = producer.call("usage")
        cpu = bench.on.cpu()
        producer.call("fill", sent)
        after = producer.call("usage")
        server_cpu = bench.on.cpu() - cpu
        bench.expect(sent + WARM_UP, peer, producer)
        held = int(bench.redis.info("memory")["used_memory"])
    return {
        "sent": sent,
        "before": before["rss"],
        "after": after["rss"],
        "grown": after["rss"] - before["rss"],
        "server": held / sent,
        "producer_cpu": (after["cpu"] - before["cpu"]) / sent * 1000,
        "server_cpu": server_cpu / sent * 1000,
    }


ON_REDIS = Measurement(
    "Memory: a producer sends {count:,} messages, batched; without a batch API a tenth of them",
    (
        Column("sent", "messages", 0),
        Column("before", "producer RSS before, MiB", 1, better="less"),
        Column("after", "after, MiB", 1, better="less"),
        Column("grown", "grown by, MiB", 1),
        Column("server", "server memory, bytes a message", 0, better="less"),
        PRODUCER_CPU,
        SERVER_CPU,
    ),
    memory,
    ("nbqueue", "dramatiq"),
    share=100,
    rounds=1,
)
