"""How busy the machine is."""

import pytest

from netsim.processes.machine_load import machine_load


@pytest.mark.parametrize(
    ("average", "processors", "load"), [(0.3, 2, 1.0), (2.0, 2, 1.0), (13.0, 2, 6.5), (8.0, None, 8.0)]
)
def test_a_busy_machine_has_more_processes_than_processors(
    monkeypatch: pytest.MonkeyPatch, average: float, processors: int | None, load: float
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (average, 99.0, 99.0))
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    assert machine_load() == load
