"""Every metric of this server, with its unit and what to do when it moves. Labels are from closed sets or install ids."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """One set for one process, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events_taken = Counter(
            "plugin_server_events_taken",
            "Events read from the ingestion topic. Flat while lag grows: see lanes_running and /_ready.",
            registry=self.registry,
        )
        self.events_emitted = Counter(
            "plugin_server_events_emitted",
            "Events committed to the output topic.",
            registry=self.registry,
        )
        self.events_dropped = Counter(
            "plugin_server_events_dropped",
            "Events that an app dropped, by install. A jump: read that app's last change.",
            ["install_id"],
            registry=self.registry,
        )
        self.events_run_again = Counter(
            "plugin_server_events_run_again",
            "Events that ran again because storage that their apps had read changed meanwhile. Steady growth: many events write one key.",
            registry=self.registry,
        )
        self.dead_letters = Counter(
            "plugin_server_dead_letters",
            "Messages that could not be processed, by step and reason. Any: read the dead letter queue.",
            ["step", "reason"],
            registry=self.registry,
        )
        self.captures = Counter(
            "plugin_server_captures",
            "Events that apps captured and that went back into ingestion.",
            registry=self.registry,
        )
        self.captures_cut = Counter(
            "plugin_server_captures_cut",
            "Captures that the loop guard cut, by rule and install. Any: two apps feed each other, or one itself.",
            ["reason", "install_id"],
            registry=self.registry,
        )
        self.app_failures = Counter(
            "plugin_server_app_failures",
            "Hook calls that failed, by install and kind. The owner sees why in the app's logs.",
            ["install_id", "kind"],
            registry=self.registry,
        )
        self.flush_seconds = Histogram(
            "plugin_server_flush_seconds",
            "Time of one lane's transaction. Above 1 s: the broker is slow.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.lanes_running = Gauge(
            "plugin_server_lanes_running",
            "Lanes that this worker owns and runs, by role. Fewer than its share for long: see /_ready.",
            ["role"],
            registry=self.registry,
        )
        self.lane_restarts = Counter(
            "plugin_server_lane_restarts",
            "Lanes acquired again after an error, by role. Steady growth: the broker or the network is unwell.",
            ["role"],
            registry=self.registry,
        )
        self.events_lost = Counter(
            "plugin_server_events_lost",
            "Offsets that retention deleted before they were read. Any: lengthen retention, add workers.",
            registry=self.registry,
        )
        self.sandbox_restarts = Counter(
            "plugin_server_sandbox_restarts",
            "Sandboxes that were killed or died, by project. Steady growth: an app runs into its limits.",
            ["project_id"],
            registry=self.registry,
        )
        self.http_captured = Counter(
            "plugin_server_http_captured",
            "Events taken by the capture endpoints.",
            registry=self.registry,
        )
        self.delivery_taken = Counter(
            "plugin_server_delivery_events_taken",
            "Events read from the output topic for delivery. Flat while events_emitted grows: see /_ready.",
            registry=self.registry,
        )
        self.deliveries = Counter(
            "plugin_server_deliveries",
            "Events that delivery hooks were given, by install, hook and outcome (delivered, failed, parked, dead_letter). "
            "failed: the app raised, its logs say what. dead_letter: its destination is away for too long.",
            ["install_id", "hook", "outcome"],
            registry=self.registry,
        )
        self.delivery_retries = Counter(
            "plugin_server_delivery_retries",
            "Parked events that were tried again, by install and outcome (delivered, failed, parked, dead_letter).",
            ["install_id", "outcome"],
            registry=self.registry,
        )
        self.parked = Gauge(
            "plugin_server_parked_events",
            "Events that wait in the database to be delivered, by install. Growing: look at `plugin-server parked list`.",
            ["install_id"],
            registry=self.registry,
        )
        self.destinations_dead = Gauge(
            "plugin_server_destinations_dead",
            "Whether an install's destination does not answer this worker (1), so that its events are parked at once.",
            ["install_id"],
            registry=self.registry,
        )
        self.jobs_run = Counter(
            "plugin_server_jobs_run",
            "Jobs that ran to their end, by install.",
            ["install_id"],
            registry=self.registry,
        )
        self.job_failures = Counter(
            "plugin_server_job_failures",
            "Attempts of jobs that failed, by install and kind. The owner sees why in the app's logs.",
            ["install_id", "kind"],
            registry=self.registry,
        )
        self.jobs_dead = Counter(
            "plugin_server_jobs_dead",
            "Jobs given up, by install. Any: read `plugin-server jobs list --dead`, then retry or drop them.",
            ["install_id"],
            registry=self.registry,
        )
        self.job_lateness_seconds = Histogram(
            "plugin_server_job_lateness_seconds",
            "From the time a job was due to its end. Grows with job_lag_seconds, or with slow jobs.",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
            registry=self.registry,
        )
        self.job_lag_seconds = Gauge(
            "plugin_server_job_lag_seconds",
            "Age of the oldest job that is due and that no worker has claimed. Above 10 s for long: add workers with the jobs role.",
            registry=self.registry,
        )
        self.ticks_run = Counter(
            "plugin_server_ticks_run",
            "Runs of runEveryMinute, runEveryHour and runEveryDay that ended well, by install and task.",
            ["install_id", "task"],
            registry=self.registry,
        )
        self.tick_failures = Counter(
            "plugin_server_tick_failures",
            "Runs of these that failed, by install, task and kind. The owner sees why in the app's logs.",
            ["install_id", "task", "kind"],
            registry=self.registry,
        )
