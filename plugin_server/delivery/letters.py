"""Dead letters of deliveries: the event's record as it came, with the install that could not be given it."""

from __future__ import annotations

from plugin_server.delivery.event import STEP
from plugin_server.delivery.parcel import Parcel, kept_records
from plugin_server.delivery.parked_store import ParkedRow
from plugin_server.eventlog.port import Headers, InputRecord, OutputRecord
from plugin_server.model.outcome import DeadLetter, DeadLetterReason
from plugin_server.outputs.dead_letters import dead_letter_record


class DeadLetters:
    """Makes the records."""

    def __init__(self, topic: str, record_bytes: int) -> None:
        self._topic = topic
        self._record_bytes = record_bytes

    def of(self, parcel: Parcel, why: str) -> list[OutputRecord]:
        """One for each event of a delivery that is given up."""
        install = parcel.install
        error = f"{parcel.hook} of {install.label}: {why}"
        letter = DeadLetter(
            STEP, DeadLetterReason.UNDELIVERABLE, error, parcel.project.id, install.id, install.app.version
        )
        events = [member.event for member in parcel.members]
        return [self._record(letter, event.key, event.value, event.headers, event.source) for event in events]

    def of_row(self, row: ParkedRow, why: str) -> list[OutputRecord]:
        """The same for a parked row whose install is not here."""
        letter = DeadLetter(
            STEP,
            DeadLetterReason.UNDELIVERABLE,
            f"{row.hook} of install {row.install_id}: {why}",
            row.project_id,
            row.install_id,
        )
        kept = kept_records(row.body)
        if not kept:
            return [self._record(letter, None, row.body, (), row.source)]
        return [self._record(letter, record.key, record.value, record.headers, record.source) for record in kept]

    def refused(self, record: InputRecord, letter: DeadLetter, source: str) -> OutputRecord:
        """Of a record that is no event."""
        return self._record(letter, record.key, record.value or b"", record.headers, source)

    def _record(
        self, letter: DeadLetter, key: bytes | None, value: bytes, headers: Headers, source: str
    ) -> OutputRecord:
        return dead_letter_record(
            self._topic,
            letter,
            key=key,
            value=value,
            headers=headers,
            source=source,
            record_bytes=self._record_bytes,
        )
