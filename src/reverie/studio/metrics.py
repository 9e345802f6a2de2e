"""What Prometheus can ask for."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.05, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)


class Metrics:
    """The numbers of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.ended = Counter("reverie_runs", "Runs that ended", ["kind", "state"], registry=self.registry)
        self.refused = Counter("reverie_refused", "Requests turned away", ["why"], registry=self.registry)
        self.images = Counter("reverie_images", "Finished images", registry=self.registry)
        self.deaths = Counter("reverie_worker_deaths", "Workers that died in mid-work", registry=self.registry)
        self.queued = Gauge("reverie_queued_runs", "Runs that wait", registry=self.registry)
        self.painting = Gauge("reverie_painting_runs", "Runs in the canvas", registry=self.registry)
        self.waited = Histogram(
            "reverie_first_event_seconds", "From request to first event", buckets=SECONDS, registry=self.registry
        )
        self.took = Histogram(
            "reverie_run_seconds", "From request to last event", buckets=SECONDS, registry=self.registry
        )
        self.batches = Histogram(
            "reverie_batch_runs", "Runs that share a canvas", buckets=(1, 2, 4, 8, 16, 32, 64), registry=self.registry
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)
