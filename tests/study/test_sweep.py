"""Small sweeps of each kind, stopped, resumed and reported; one on a Ray cluster that loses a worker."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml
from matplotlib.figure import Figure

from dreamerjax import cli
from dreamerjax.runs.presets import read_env
from dreamerjax.runs.settings import combine
from dreamerjax.runtime.processes import HOME as ROOT
from dreamerjax.study import optuna_study
from dreamerjax.study.jobs import Job, summary_of
from dreamerjax.study.optuna_study import run_study
from dreamerjax.study.population_run import run_population
from dreamerjax.study.sweep_pictures import draw_sweep
from dreamerjax.study.sweep_plan import SweepPlan, read_sweep
from dreamerjax.study.sweep_report import write_sweep_report
from dreamerjax.study.sweep_result import PointResult, RunCurve, SweepResult
from tests.system import wait_until
from tests.training.small_runs import TINY

QUICK = {key: value for key, value in TINY.items() if key != "env.name"}
GRID = {
    "sweep": "Which entropy?",
    "kind": "grid",
    "environment": "cartpole",
    "settings": QUICK,
    "over": {"agent.actor.entropy_scale": [0.001, 0.1], "agent.actor.learning_rate": [1e-3]},
    "metric": "mean_return",
}


def write(folder: Path, content: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "entropy.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def test_a_grid_writes_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, GRID)
    assert cli.main(["sweep", str(file), "--jobs=2"]) == 0
    folder = tmp_path / "runs" / "sweeps" / "entropy"
    report, result = (folder / "REPORT.md").read_text(), json.loads((folder / "result.json").read_text())
    assert [each["point"]["agent.actor.entropy_scale"] for each in result["points"]] == [0.001, 0.1]
    for each in result["points"]:
        (run,) = each["runs"]
        assert each["values"] == [pytest.approx(np.mean(run["returns"]), abs=1e-3)]
        assert (tmp_path / run["folder"] / "metrics.jsonl").exists()
        assert f"`{run['folder']}`" in report
    assert "| 0.001 | 0.001 |" in report
    assert "One seed is too few to estimate the spread between seeds." in report
    assert (folder / "heat_map.png").stat().st_size > 5000
    # The same command without the journal: trains nothing, and the report does not change.
    plan = read_sweep(file)
    jobs = [job for point in plan.grid() for job in plan.jobs(point)]
    ended = [summary_of(job) for job in jobs]
    (folder / "study.log").unlink()
    assert cli.main(["sweep", str(file)]) == 0
    assert [summary_of(job) for job in jobs] == ended
    assert (folder / "REPORT.md").read_text() == report


def test_another_sweep_of_the_same_name_gives_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]
    optuna_study._open_study(read_sweep(write(tmp_path, GRID)), tmp_path / "out" / "entropy")
    other = write(tmp_path, {**GRID, "over": {"agent.actor.entropy_scale": [0.5]}})
    assert cli.main(["sweep", str(other), *out]) == 2
    assert "contains another sweep of this name" in capsys.readouterr().err


# Searches, with simulated runs whose return depends on the learning rate


class SimulatedRunner:
    """Simulates jobs: five evaluations each, with the highest return at a learning rate of 1e-3."""

    def __init__(self, stop_after: int = 10**6) -> None:
        self.started: list[Job] = []
        self._stop_after = stop_after

    def __call__(self, jobs, *, stop_early) -> bool:
        for job in jobs:
            if summary_of(job) is not None:
                continue
            if len(self.started) == self._stop_after:
                return False
            self.started.append(job)
            job.folder.mkdir(parents=True, exist_ok=True)
            top = 100 - 30 * abs(np.log10(job.config.agent.actor.learning_rate) + 3) + job.config.seed
            lines = []
            for n in range(1, 6):
                lines.append(
                    json.dumps({"step": 12 * n, "update": n, "wall_seconds": n, "eval/return_mean": top * n / 5})
                )
                (job.folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
                if stop_early(job):
                    break
            else:
                summary = {"stopped": "budget", "env_steps": 60, "eval": {"return_mean": top}, "wall_seconds": 5}
                (job.folder / "summary.json").write_text(json.dumps(summary))
        return True


def search(tmp_path: Path, **more) -> SweepPlan:
    over = {"agent.actor.learning_rate": {"low": 1e-6, "high": 1e-1, "log": True}}
    content = {**GRID, "kind": "search", "over": over, "trials": 14, "seeds": [0, 1], "prune": True, **more}
    return read_sweep(write(tmp_path, content))


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_stopped_and_resumed_search_makes_the_same_trials(tmp_path: Path, at_once: int) -> None:
    plan = search(tmp_path)
    whole = run_study(plan, tmp_path / "a", SimulatedRunner(), at_once=at_once, pool=tmp_path / "pool a")
    assert whole is not None
    assert len(whole) == plan.trials
    pruned = [trial for trial in whole if trial.pruned_at is not None]
    assert 2 <= len(pruned) < 10, "some are pruned"
    assert all(20 < trial.pruned_at < 60 for trial in pruned if trial.pruned_at is not None)
    best = max((trial for trial in whole if trial.values), key=lambda trial: sum(trial.values))
    assert 1e-4 < best.point["agent.actor.learning_rate"] < 1e-2
    parts, starts = None, 0
    while parts is None:
        runner = SimulatedRunner(stop_after=4)
        parts = run_study(plan, tmp_path / "b", runner, at_once=at_once, pool=tmp_path / "pool b")
        starts += 1
    assert starts > 3
    assert parts == whole


def test_a_pruned_trial_runs_only_its_first_seed(tmp_path: Path) -> None:
    runner = SimulatedRunner()
    trials = run_study(search(tmp_path), tmp_path / "a", runner, at_once=1, pool=tmp_path / "pool")
    assert trials is not None
    pruned = sum(trial.pruned_at is not None for trial in trials)
    assert len(runner.started) == 2 * (len(trials) - pruned) + pruned
    states = [trial.state for trial in optuna_study._open_study(search(tmp_path), tmp_path / "a").trials]
    assert states.count(optuna.trial.TrialState.PRUNED) == pruned


# Ray


def test_a_sweep_on_ray_survives_the_loss_of_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker for each core; one is killed with SIGKILL while it trains. Another one resumes its run."""
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    settings = {**QUICK, "train.env_steps": 400, "log.checkpoint_seconds": 0.5}
    file = write(tmp_path, {**GRID, "settings": settings})
    plan = read_sweep(file)
    jobs = [job for point in plan.grid() for job in plan.jobs(point)]
    killed: list[int] = []
    ended = threading.Event()

    def kill_a_worker() -> None:
        pid = jobs[0].folder / ".pid"
        metrics = jobs[0].folder / "metrics.jsonl"
        wait_until(lambda: ended.is_set() or (pid.exists() and metrics.exists() and metrics.stat().st_size))
        if ended.is_set():
            return
        status = Path(f"/proc/{int(pid.read_text())}/status").read_text()
        killed.append(int(next(line for line in status.splitlines() if line.startswith("PPid")).split()[1]))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    # In a subprocess, because Ray forks.
    command = [sys.executable, str(ROOT / "run.py"), "sweep", str(file), "--executor=ray"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    finally:
        ended.set()
        killer.join()
    assert done.returncode == 0, done.stderr
    assert killed
    assert [summary["env_steps"] for job in jobs if (summary := summary_of(job)) is not None] == [400, 400]
    assert (jobs[0].folder / "output.txt").read_text().count("Resumed at") == 1
    # The report is the same as without Ray.
    report = (tmp_path / "runs" / "sweeps" / "entropy" / "REPORT.md").read_text()
    (tmp_path / "alone").mkdir()
    monkeypatch.chdir(tmp_path / "alone")
    assert cli.main(["sweep", str(file)]) == 0
    assert (tmp_path / "alone" / "runs" / "sweeps" / "entropy" / "REPORT.md").read_text() == report


# A population


def test_a_population_writes_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {
        **{key: value for key, value in GRID.items() if key != "metric"},
        "kind": "population",
        "over": {"agent.actor.learning_rate": [1e-4, 1e-2], "agent.actor.entropy_scale": [0.001, 1.0]},
        "starts_from": {"train.mode": "world_model"},
        "updates": 12,
        "evaluate_every": 4,
        "seeds": [0, 1],
    }
    file = write(tmp_path, content)
    assert cli.main(["sweep", str(file)]) == 0
    folder = tmp_path / "runs" / "sweeps" / "entropy"
    result = json.loads((folder / "result.json").read_text())
    assert len(result["points"]) == 4
    runs = result["points"][1]["runs"]
    assert [run["steps"] for run in runs] == [[4, 8, 12]] * 2
    assert [run["folder"] for run in runs] == [f"runs/sweeps/entropy/seed{seed}" for seed in (0, 1)]
    assert result["points"][1]["values"] == pytest.approx([run["returns"][-1] for run in runs], abs=1e-3)
    assert "| 0.0001 | 1 |" in (folder / "REPORT.md").read_text()
    # Stopped and resumed at many points, it gives the same returns.
    plan, looks, parts = read_sweep(file), 0, None
    while parts is None:
        stop_at = looks = looks + 2
        asked = iter(range(10**6))
        parts = run_population(
            plan, tmp_path / "parts", say=print, interrupted=lambda asked=asked, at=stop_at: next(asked) >= at
        )
    returns = np.array([curves.returns for curves in parts])
    np.testing.assert_allclose(returns[:, :, 1], [run["returns"] for run in runs], atol=1e-3)
    # A world model of another architecture gives an error.
    other = {**content, "settings": {**QUICK, "agent.model.hidden": 16}, "starts_from": str(_only_run(tmp_path))}
    capsys.readouterr()
    assert cli.main(["sweep", str(write(tmp_path / "other", other))]) == 2
    assert "agent.model.hidden: 8 there, 16 here" in capsys.readouterr().err


def _only_run(tmp_path: Path) -> Path:
    (run,) = (tmp_path / "runs" / "pool").iterdir()
    return run


# Reports


def runs(*curves: list[float]) -> list[RunCurve]:
    """One learning curve per seed, with an evaluation every 30 steps."""
    return [
        RunCurve(Path(f"runs/pool/seed{seed}"), 30 * np.arange(1, len(curve) + 1), np.array(curve, float))
        for seed, curve in enumerate(curves)
    ]


def test_the_report_of_a_search_is_sorted_and_marks_pruned_trials(tmp_path: Path) -> None:
    plan = search(tmp_path, metric="final_return")
    key = "agent.actor.learning_rate"
    points = [
        PointResult({key: 1e-4}, (20.0, 21.0), runs([10, 20], [11, 21])),
        PointResult({key: 1e-5}, (), runs([3])[:1], 24),
        PointResult({key: 1e-3}, (40.0, 41.0), runs([20, 40], [22, 41])),
    ]
    report = write_sweep_report(SweepResult(plan, points, "environment steps", 0.0), tmp_path).read_text()
    rows = [line for line in report.splitlines() if line.startswith("| ") and "`" not in line]
    assert [row.split("|")[1].strip() for row in rows] == ["0.001", "0.0001", "1e-05"]
    assert "pruned at 24" in rows[2]
    assert "Best: `agent.actor.learning_rate` 0.001, with 40.5" in report
    assert "Two seeds are too few to estimate the spread between seeds." in report
    assert "- `agent.actor.learning_rate` 0.001: `runs/pool/seed0`, `runs/pool/seed1`" in report
    assert (tmp_path / "points.png").stat().st_size > 3000
    assert combine(read_env("cartpole")).env.name in report


def test_final_has_one_definition_in_table_metric_and_best(tmp_path: Path) -> None:
    """Also for seeds that end at different steps, and with a last return far from the one before it."""
    plan = read_sweep(write(tmp_path, {**GRID, "metric": "final_return", "seeds": 3}))
    rising, solved_early, falling = [10.3, 16.0, 70.6], [10.0, 99.4], [10.0, 80.0, 20.0]
    points = []
    for point, curves in zip(plan.grid(), ((rising, solved_early, rising), (falling,) * 3), strict=True):
        values = tuple(curve[-1] for curve in curves)
        points.append(PointResult(point, values, runs(*curves)))
    report = write_sweep_report(SweepResult(plan, points, "environment steps", 0.0), tmp_path).read_text()
    assert "with 80.2 (mean greedy return of the last evaluation; 3 seeds)" in report
    assert "| 0.001 | 0.001 | 80.2 | 80.2 | rising 2, too few to tell 1 | 70.6, 99.4, 70.6 |" in report
    assert "| 0.1 | 0.001 | 80.0 | 20.0 | peak then decline | 20.0, 20.0, 20.0 |" in report
    assert "too few to estimate the spread" not in report
    assert {"heat_map.png", "curves.png"} <= {file.name for file in tmp_path.iterdir()}


def test_panels_of_a_heat_map_share_axes_and_the_colours_of_returns(tmp_path: Path) -> None:
    """A metric that is not a return has a separate colour scale and title."""
    plan = read_sweep(write(tmp_path, {**GRID, "metric": "wall_seconds"}))
    points = [PointResult(point, (5000.0 + n,), runs([10, 20 + n, 30])) for n, point in enumerate(plan.grid())]
    figures = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, file, **options: figures.append(self))
        draw_sweep(SweepResult(plan, points, "environment steps", 0.0), tmp_path)
    peak, final, metric = figures[0].axes[:3]
    assert [axes.get_title() for axes in (peak, final, metric)] == ["peak return", "final return", "wall_seconds"]
    assert peak.images[0].norm is final.images[0].norm
    assert (metric.images[0].norm.vmin, metric.images[0].norm.vmax) == (5000, 5001)
    for axes in (final, metric):
        assert axes.get_shared_x_axes().joined(peak, axes)
        assert axes.get_shared_y_axes().joined(peak, axes)
