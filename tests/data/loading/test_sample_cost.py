"""What a sample costs on one core, as a multiple of the bare decode of its frames."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
SLACK = 1.5  # over the aims, which are for a quiet machine and many samples


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_decoding_is_what_a_sample_costs(tmp_path: Path) -> None:
    """With every decoder that is installed; both sides in one process, in CPU time, so that others do not count."""
    command = [sys.executable, "scripts/bench_data.py", "--gops", "12", "--samples", "10", "--rounds", "2"]
    subprocess.run([*command, "--json", str(tmp_path / "costs.json")], cwd=REPOSITORY, check=True, capture_output=True)
    costs = json.loads((tmp_path / "costs.json").read_text())
    assert len(costs) % 5 == 0
    for cost in costs:
        if cost["aim"] is not None:
            assert cost["ratio"] <= SLACK * cost["aim"], cost
        assert cost["shares"]["decoding"] == max(cost["shares"].values()), cost
