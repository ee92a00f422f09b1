"""The benchmark runs and reports everything; how fast anything is, is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

OVERLOAD = Path(__file__).parents[2] / "benchmarks" / "overload.py"
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "predict.py"
SAMPLE = {"calls", "p50_ms", "p99_ms", "per_s", "server_cpu_ms", "client_cpu_ms"}


@pytest.fixture
def run(tmp_path: Path):
    def run_with(models: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        quick = ["--seconds", "0.05", "--rounds", "1", "--starts", "1", "--json", tmp_path / "out.json"]
        command = [sys.executable, BENCHMARK, "--models", models, *quick, *arguments]
        return subprocess.run(command, text=True, capture_output=True, check=False)

    return run_with


def test_a_run_reports_every_contestant_at_every_number_of_clients(run, tmp_path: Path, models: Path) -> None:
    outcome = run(models, "--paced", "100", "--only", "mobilenet_v1", "echo-1KB", "input-1KB", "first-answer")
    assert outcome.returncode == 0, outcome.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert report.keys() == {"machine", "settings", "rows", "first_answers", "targets"}
    for row in report["rows"]:
        assert row.keys() == SAMPLE | {
            *("workload", "contestant", "clients", "paced_per_s", "of_in_process", "of_bare_server", "rounds")
        }
        assert [sample.keys() for sample in row["rounds"]] == [SAMPLE]
        assert row["calls"] >= row["clients"]
        assert row["p99_ms"] >= row["p50_ms"] > 0
        assert row["of_bare_server"] > 0
        assert (row["of_in_process"] is None) == row["workload"].endswith("1KB")
    expected = {
        "mobilenet_v1_0.25_128": [
            "in-process",
            "bare server",
            "ours",
            "ours, 2 instances",
            "ours, defaults",
            "ours, v2",
        ],
        "echo-1KB": ["bare server", "ours", "ours, v2"],
        "input-1KB": ["bare server", "ours", "ours, shared memory", "ours, v2", "ours, v2, shared memory"],
    }
    assert [(row["workload"], row["clients"], row["paced_per_s"], row["contestant"]) for row in report["rows"]] == [
        (workload, clients, paced, contestant)
        for workload, contestants in expected.items()
        for clients, paced in [(1, None), (2, None), (4, None), (8, None), (1, 100.0)]
        for contestant in contestants
    ]
    assert [each["contestant"] for each in report["first_answers"]] == ["bare server", "ours"]
    assert [target["workload"] for target in report["targets"]] == ["first-answer"]
    assert report["targets"][0].keys() == {"workload", "meaning", "limit", "value", "unit", "met"}
    for text in (
        "mobilenet_v1_0.25_128",
        "echo-1KB",
        "input-1KB",
        "first-answer",
        "ours, 2 instances",
        "ours, defaults",
        "target",
    ):
        assert text in outcome.stdout


def test_without_models_the_rest_is_measured(run, tmp_path: Path) -> None:
    outcome = run(tmp_path, "--only", "echo-1KB")
    assert outcome.returncode == 0, outcome.stderr
    assert "mobilenet_v2 is not measured" in outcome.stderr
    assert {row["workload"] for row in json.loads((tmp_path / "out.json").read_text())["rows"]} == {"echo-1KB"}
    assert not list(Path("/dev/shm").glob("acap-benchmark-*"))


def test_a_name_that_means_nothing_is_refused(run, tmp_path: Path) -> None:
    outcome = run(tmp_path, "--only", "echo-2KB")
    assert outcome.returncode == 1
    assert "echo-2KB" in outcome.stderr
    assert "echo-1KB" in outcome.stderr


def test_the_benchmark_of_video_reports_rates_and_costs(tmp_path: Path, models: Path) -> None:
    report = tmp_path / "out.json"
    quick = ["--seconds", "0.2", "--rounds", "1", "--models", models, "--json", report]
    command = [sys.executable, BENCHMARK.with_name("streams.py"), *quick]
    outcome = subprocess.run(command, text=True, capture_output=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    measured = json.loads(report.read_text())
    assert list(measured["predictions"]) == ["in-process", "ours, 1 client", "ours, 2 clients", "ours, 4 clients"]
    assert all(sample["per_s"] > 0 for (sample,) in measured["predictions"].values())
    assert [each["size"] for each in measured["fetching"]] == ["224x224", "1920x1080"]
    assert all(each["call_ms"] > 0 for each in measured["fetching"])
    assert "target " in outcome.stdout


def test_video_is_not_measured_without_its_model(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARK.with_name("streams.py"), "--models", tmp_path]
    outcome = subprocess.run(command, text=True, capture_output=True, check=False)
    assert outcome.returncode == 1
    assert "mobilenet_v2" in outcome.stderr


def test_a_server_that_is_overloaded_keeps_what_it_promised_and_its_chip_busy(tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    outcome = subprocess.run(
        [sys.executable, OVERLOAD, "--seconds", "4", "--json", report], text=True, capture_output=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    figures = json.loads(report.read_text())
    assert 90 < figures["offered_per_s"] <= 101
    assert figures["late_share"] < 0.3  # nearly all, were the queue merely bounded
    assert figures["idle_share"] < 0.4
    assert figures["refused_per_s"] > 30
    assert figures["health_p99_ms"] > 0
    assert "target" in outcome.stdout
