"""A small experiment from file to report, also killed and resumed."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from dreamerjax import cli
from dreamerjax.monitoring.metrics import read_metrics
from dreamerjax.runs.checkpoint import read_host
from dreamerjax.runs.lineage import lineage_of
from dreamerjax.runs.presets import read_env
from dreamerjax.runs.settings import combine
from dreamerjax.runtime.processes import HOME as ROOT
from dreamerjax.study.hypothesis import read_hypothesis
from dreamerjax.study.jobs import Job, JobFailedError, run_job, summary_of
from tests.system import wait_until
from tests.training.small_runs import TINY


def job(pool: Path, *, env_steps: int = 60, **options) -> Job:
    layers = [*read_env("cartpole"), TINY, {"log.video_every": 0, "train.env_steps": env_steps}]
    return Job(combine(layers), pool=pool, **options)


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    quick = {key: value for key, value in TINY.items() if key != "env.name"}
    content = {
        "hypothesis": "More entropy changes nothing.",
        "environment": "cartpole",
        "settings": quick,
        "change": {"agent.actor.entropy_scale": 0.1},
        "metric": "mean_return",
        "expect": {"direction": "same", "by": "90%"},
        "seeds": [0, 1],
        "shown": ["train/kl"],
    }
    path = tmp_path / "entropy.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_an_experiment_writes_a_report(file, tmp_path):
    arguments = ["experiment", str(file), "--jobs=2", "--log", str(tmp_path / "notes" / "LOG.md")]
    assert cli.main(arguments) == 0
    folder = tmp_path / "runs" / "experiments" / "entropy"
    report, result = (folder / "REPORT.md").read_text(), json.loads((folder / "result.json").read_text())
    assert "| `agent.actor.entropy_scale` | 0.003 | 0.1 |" in report
    assert (folder / "curves.png").stat().st_size > 5000
    assert "Two seeds are too few to estimate the spread between seeds." in report
    assert result["probability_of_improvement"]["low"] is None
    assert not re.search(r"\[-?[\d.]+, -?[\d.]+\]", report), "no interval of two seeds"
    for arm, jobs in zip(("baseline", "change"), read_hypothesis(file).jobs(), strict=True):
        rows = [read_metrics(job.folder / "metrics.jsonl") for job in jobs]
        assert f"- {arm}: `{jobs[0].folder}`, `{jobs[1].folder}`" in report
        # The last evaluation replaces the regular one of the same step.
        returns = [{row["step"]: row["eval/return_mean"] for row in run if "eval/return_mean" in row} for run in rows]
        means = [np.mean(list(by_step.values())) for by_step in returns]
        assert result["arms"][arm]["outcomes"] == pytest.approx(means, abs=1e-5)
    # The same command again trains nothing, and report and log do not change.
    ended = [summary_of(job) for jobs in read_hypothesis(file).jobs() for job in jobs]
    log = (tmp_path / "notes" / "LOG.md").read_text()
    assert log.count("## ") == 1
    assert cli.main(arguments) == 0
    assert [summary_of(job) for jobs in read_hypothesis(file).jobs() for job in jobs] == ended
    assert (folder / "REPORT.md").read_text() == report
    assert (tmp_path / "notes" / "LOG.md").read_text() == log


def test_a_stopped_and_resumed_job_gives_the_same_metrics(tmp_path):
    whole, parts = (job(tmp_path / name, env_steps=600) for name in ("whole", "parts"))
    run_job(whole)
    metrics = parts.folder / "metrics.jsonl"
    assert run_job(parts, stop=lambda: metrics.exists() and metrics.read_text().count("\n") > 3) is None
    assert summary_of(parts) is None
    run_job(parts)

    def numbers(job: Job) -> list[dict]:
        rows = read_metrics(job.folder / "metrics.jsonl")
        return [{k: v for k, v in row.items() if k != "wall_seconds" and not k.startswith("speed/")} for row in rows]

    assert numbers(parts) == numbers(whole)


def test_a_variant_changes_only_its_own_job(tmp_path):
    variant = tmp_path / "variants.py"
    variant.write_text(
        "def no_kl():\n"
        "    from dreamerjax.agent import world_model\n"
        "    right = world_model.balanced_kl\n"
        "    world_model.balanced_kl = lambda *a, **o: tuple(0.0 * x for x in right(*a, **o))\n"
    )
    plain, changed = job(tmp_path), job(tmp_path, variant=f"{variant}:no_kl")
    assert plain.folder != changed.folder
    for one, zero in ((plain, False), (changed, True)):
        run_job(one)
        losses = [row["train/dynamics_loss"] for row in read_metrics(one.folder / "metrics.jsonl") if "train/kl" in row]
        assert losses
        assert (max(losses) == 0) is zero


def test_a_failed_job_reports_the_reason(tmp_path):
    variant = tmp_path / "variants.py"
    variant.write_text("def broken():\n    raise RuntimeError('this variant is broken')\n")
    with pytest.raises(JobFailedError, match="this variant is broken"):
        run_job(job(tmp_path, variant=f"{variant}:broken"))


def test_a_run_saves_and_stops_when_its_experiment_is_killed(file, tmp_path):
    """SIGKILL ends the parent without a signal to the child."""
    long = yaml.safe_load(file.read_text())
    long["settings"]["train.env_steps"] = 100_000
    file.write_text(yaml.safe_dump(long))
    parent = subprocess.Popen([sys.executable, str(ROOT / "run.py"), "experiment", str(file)], cwd=tmp_path)
    first = read_hypothesis(file).jobs(tmp_path / "runs" / "pool")[0][0].folder
    try:
        wait_until(lambda: _started(first) or parent.poll() is not None)
        assert parent.returncode is None, "the experiment is still running"
        child = int((first / ".pid").read_text())
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_until(lambda: not _alive(child))
    assert json.loads((first / "summary.json").read_text())["stopped"] == "interrupted"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")  # a zombie


def _started(folder: Path) -> bool:
    return (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").stat().st_size > 0


def test_an_experiment_can_start_from_a_run(tmp_path, file):
    """Both arms are forks of the run; another architecture gives an error before training."""
    start = job(tmp_path / "start")
    run_job(start)
    content = yaml.safe_load(file.read_text()) | {"starts_from": str(start.folder), "seeds": [0, 1]}
    file.write_text(yaml.safe_dump(content))
    baseline, change = read_hypothesis(file).jobs(tmp_path / "pool")
    assert baseline[0].folder != change[0].folder
    run_job(change[1])
    lineage = lineage_of(read_host(change[1].folder / "checkpoints")[0])
    assert [event.what for event in lineage] == ["begun", "forked"]
    assert lineage[1].parent == str(start.folder.resolve())
    assert lineage[1].changed["agent.actor.entropy_scale"] == [0.003, 0.1]
    content["settings"]["agent.model.hidden"] = 16
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(JobFailedError, match=r"agent\.model\.hidden: 8 there, 16 here"):
        run_job(read_hypothesis(file).jobs(tmp_path / "pool")[0][0])


def test_ctrl_c_saves_the_runs_and_the_same_command_resumes_them(file, tmp_path):
    long = yaml.safe_load(file.read_text())
    long["settings"]["train.env_steps"] = 600
    file.write_text(yaml.safe_dump(long))
    command = [sys.executable, str(ROOT / "run.py"), "experiment", str(file)]
    first = read_hypothesis(file).jobs(tmp_path / "runs" / "pool")[0][0].folder
    before = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_until(lambda: _started(first) or before.poll() is not None)
        before.send_signal(signal.SIGINT)
        output, _ = before.communicate()
    finally:
        before.kill()
    assert before.returncode == 130
    assert "run the same command to resume" in output
    assert json.loads((first / "summary.json").read_text())["stopped"] == "interrupted"
    assert not (first / ".pid").exists()
    after = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert after.returncode == 0, after.stderr
    assert "Resumed at" in (first / "output.txt").read_text()
    assert (tmp_path / "runs" / "experiments" / "entropy" / "REPORT.md").exists()
