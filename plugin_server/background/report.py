"""Counts what becomes of jobs and schedules."""

from __future__ import annotations

from plugin_server.metrics import Metrics


class BackgroundReport:
    """JobReport and ScheduleReport on the metrics of the process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def job_ran(self, install_id: int, late_ms: int) -> None:
        self._metrics.jobs_run.labels(install_id).inc()
        self._metrics.job_lateness_seconds.observe(late_ms / 1000)

    def job_failed(self, install_id: int, kind: str) -> None:
        self._metrics.job_failures.labels(install_id, kind).inc()

    def job_died(self, install_id: int) -> None:
        self._metrics.jobs_dead.labels(install_id).inc()

    def job_lag(self, milliseconds: int) -> None:
        self._metrics.job_lag_seconds.set(milliseconds / 1000)

    def tick_ran(self, install_id: int, task: str) -> None:
        self._metrics.ticks_run.labels(install_id, task).inc()

    def tick_failed(self, install_id: int, task: str, kind: str) -> None:
        self._metrics.tick_failures.labels(install_id, task, kind).inc()
