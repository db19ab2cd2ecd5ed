"""The command `bench`: what it prints, what it compares and what it refuses. Nothing is judged by time."""

import copy
import dataclasses
import datetime
import functools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
import yaml

from dreamerjax import cli
from dreamerjax.agent.agent import build_agent, init_train_state
from dreamerjax.agent.train_step import train_step
from dreamerjax.bench import bench, update_breakdown
from dreamerjax.bench import sweep as bench_sweep
from dreamerjax.bench import table as bench_table
from dreamerjax.bench.flops import matmul_flop
from dreamerjax.bench.settings import add_flags, read_bench_settings
from dreamerjax.bench.synthetic import filled_replay
from dreamerjax.cli.common import command_parser, print_result
from dreamerjax.config import Config, ReplayConfig, flatten, resolve
from dreamerjax.runs.settings import combine
from dreamerjax.types import ActionSpec, ObsSpec, Spaces
from tests import tiny

WORK = {"batch_size": 2, "sequence_length": 4, "horizon": 3, "num_envs": 2, "updates_per_dispatch": 2}
WORK |= {"replay_rows": 50, "obs_size": 3, "actions": 5, "rounds": 2}
FLAGS = [f"--{name.replace('_', '-')}={value}" for name, value in WORK.items()]
MODEL = dataclasses.replace(tiny.MODEL, reward_layers=0, cont_layers=0, prior_layers=0, posterior_layers=0)
MEASURED = ("updates_per_second", "transitions_per_second", "matmul_peak_gflops", "share_of_peak")
MEASURED += ("update_ms", "parts_together_ms", "parts_share_of_update")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "CPU_SIZES", (32, 64))
        yield


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A bench that takes seconds."""
    file = tmp_path_factory.mktemp("settings") / "tiny.yaml"
    model = {name: value for name, value in vars(MODEL).items() if name != "size"}
    file.write_text(yaml.safe_dump({"agent": {"model": model}, "train": {"env_steps": 10}}))
    return ["bench", "--backend=cpu", f"--config={file}", *FLAGS]


@pytest.fixture(scope="module")
def printed(command: list[str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda *values: lines.append(" ".join(map(str, values))))
        assert cli.main([*command, "--json"]) == 0
    return "\n".join(lines)


@pytest.fixture(scope="module")
def result(printed: str) -> dict[str, Any]:
    return json.loads(printed)


def is_spread(figure: Any, *, lowest: float) -> bool:
    lower, upper = figure["quartiles"]
    return set(figure) == {"median", "quartiles"} and lowest < lower <= figure["median"] <= upper < math.inf


def test_json_is_one_object_on_one_line(printed: str):
    assert printed.count("\n") == 0
    assert isinstance(json.loads(printed), dict)


def test_json_has_every_figure(result: dict[str, Any]):
    for name in MEASURED:
        assert is_spread(result[name], lowest=-math.inf if name.startswith("parts") else 0.0), name
    assert list(result["parts_ms"]) == [*update_breakdown.OF_UPDATE, *update_breakdown.BETWEEN_UPDATES]
    for name, figure in result["parts_ms"].items():
        assert is_spread(figure, lowest=0.0), name
    assert result["compile_seconds_cold"] > 0
    assert result["compile_seconds_warm"] > 0
    assert result["peak_memory_mb"] > 50, "Python with JAX alone takes more"
    assert result["peak_memory_of"].startswith("process, ru_maxrss")
    rows = WORK["batch_size"] * WORK["sequence_length"]
    per_second = result["updates_per_second"]["median"]
    assert result["transitions_per_second"]["median"] == pytest.approx(rows * per_second)


def test_json_tells_where_it_was_measured(result: dict[str, Any]):
    assert result["backend"] == "cpu"
    assert "core" in result["device"]
    assert result["versions"]["jax"] == jax.__version__
    assert isinstance(result["git_commit"], str | None)
    assert datetime.datetime.fromisoformat(result["date"]).tzinfo is not None


def test_json_has_every_setting(result: dict[str, Any]):
    settings = result["settings"]
    assert {name: settings[name] for name in WORK} == WORK
    assert (settings["size"], settings["precision"], settings["image"]) == ("1m", "float32", False)
    model = {f"agent.model.{name}": value for name, value in vars(MODEL).items() if name != "size"}
    assert {name: settings[name] for name in model} == model


def test_parameters_and_work_are_those_of_the_agent(result: dict[str, Any]):
    """The critic alone, by hand: a layer with the scale of its norm, then the bins."""
    spaces = Spaces((ObsSpec("state", (3,)),), (ActionSpec("discrete", 5),))
    agent_settings = {key: value for key, value in result["settings"].items() if key.startswith("agent.")}
    agent_settings["agent.returns.imagination_horizon"] = result["settings"]["horizon"]
    agent = build_agent(combine([agent_settings]).agent, spaces)
    state = jax.eval_shape(functools.partial(init_train_state, agent), jax.random.PRNGKey(0))
    count = {name: sum(math.prod(x.shape) for x in jax.tree.leaves(part)) for name, part in vars(state.params).items()}
    features = MODEL.deter + MODEL.groups * MODEL.classes
    assert count["critic"] == (features + 2) * MODEL.hidden + (MODEL.hidden + 1) * MODEL.bins
    assert result["parameters"] == sum(count.values())

    batch = filled_replay(ReplayConfig(capacity=20), spaces, num_envs=1, seed=0).sample(2, 4, 1)
    program = jax.make_jaxpr(functools.partial(train_step, agent))(state, jax.tree.map(lambda x: x[0], batch))
    assert result["gflop_per_update"] == pytest.approx(1e-9 * matmul_flop(program.jaxpr), rel=1e-9)


def test_the_table_mentions_every_figure_and_part(result: dict[str, Any], capsys: pytest.CaptureFixture[str]):
    print_result(result, bench_table.result_table(result), as_json=False)
    out = capsys.readouterr().out
    named = (*bench_table.FIGURES, *bench_table.OF_UPDATE, *bench_table.BETWEEN_UPDATES)
    for words in [words for _, words, *_ in named] + ["these parts together", "one update, measured"]:
        assert words in out
    assert f"{result['parameters']:,}" in out
    assert "2 x 4 rows" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out


def test_without_flags_it_is_the_reference_work():
    parser = command_parser("bench", "")
    add_flags(parser)
    settings = read_bench_settings(parser.parse([]))
    published = flatten(resolve(Config()))
    assert {key: value for key, value in flatten(settings.config).items() if key.startswith("agent.")} == {
        key: value for key, value in published.items() if key.startswith("agent.")
    }
    train = settings.config.train
    assert (train.batch_size, train.sequence_length, train.updates_per_dispatch) == (16, 64, 4)
    assert settings.spaces == Spaces((ObsSpec("state", (4,)),), (ActionSpec("discrete", 2),))
    assert settings.rounds >= 8
    image = read_bench_settings(parser.parse(["--image"])).spaces
    assert image.obs == (ObsSpec("image", (64, 64, 3)),)


def test_help_shows_every_flag(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for flag in [*FLAGS, "--size", "--precision", "--image", "--config", "--json", "--compare", "--sweep", "--backend"]:
        assert flag.partition("=")[0] in out


# Two results side by side


@pytest.fixture
def files(tmp_path: Path, result: dict[str, Any]) -> tuple[Path, Path]:
    """A result, and one that is twice as fast."""
    other = copy.deepcopy(result)
    other["updates_per_second"]["median"] *= 2
    other["parts_ms"]["imagine"]["median"] /= 2
    other["gflop_per_update"] *= 3
    other["parts_ms"]["new_part"] = {"median": 1.0, "quartiles": [1.0, 1.0]}
    paths = tmp_path / "a.json", tmp_path / "b.json"
    for path, content in zip(paths, (result, other), strict=True):
        path.write_text(json.dumps(content))
    return paths


def compared(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert cli.main(["bench", "--compare", *map(str, arguments)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_ratios_of_every_figure_that_both_have(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    comparison = json.loads(compared(capsys, *files, "--json"))
    ratios = {name: row["ratio"] for name, row in comparison["ratios"].items()}
    changed = {"updates_per_second": 2.0, "parts_ms.imagine": 0.5, "gflop_per_update": 3.0}
    assert {name: ratio for name, ratio in ratios.items() if ratio != 1} == pytest.approx(changed)
    expected = {name for name, _, _ in bench_table.FIGURES} | set(MEASURED)
    assert set(ratios) == expected | {
        f"parts_ms.{name}" for name in (*update_breakdown.OF_UPDATE, *update_breakdown.BETWEEN_UPDATES)
    }
    assert comparison["differences"] == []

    out = compared(capsys, *files)
    assert "NOT THE SAME" not in out
    (row,) = (line.split() for line in out.splitlines() if line.split()[:1] == ["updates_per_second"])
    assert row[-1] == "2.000"


def test_a_ratio_to_nothing_is_none(result: dict[str, Any]):
    nothing = copy.deepcopy(result)
    nothing["parts_ms"]["transfer"]["median"] = 0.0
    nothing["peak_memory_mb"] = None
    comparison = bench_table.compare(nothing, result)
    assert comparison["ratios"]["parts_ms.transfer"]["ratio"] is None
    assert "peak_memory_mb" not in comparison["ratios"]
    bench_table.comparison_table(comparison, Path("a"), Path("b"))


def test_other_settings_and_devices_are_told(
    files: tuple[Path, Path], result: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    other = copy.deepcopy(result)
    other["settings"]["batch_size"] = 8
    other["device"] = "another machine"
    files[1].write_text(json.dumps(other))
    differences = json.loads(compared(capsys, *files, "--json"))["differences"]
    assert differences == [f"device: {result['device']} in A, another machine in B", "batch_size: 2 in A, 8 in B"]
    out = compared(capsys, *files)
    assert "NOT THE SAME WORK OR PLACE" in out
    assert "batch_size: 2 in A, 8 in B" in out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "b.json cannot be read: No such file or directory"),
        ("", "b.json is not JSON: "),
        ("{", "b.json is not JSON: "),
        ("[1, 2]", "b.json is no result of the bench"),
        ('{"updates_per_second": 3}', "b.json is no result of the bench"),
        (b"\xff\xfe", "b.json is not JSON: "),
    ],
)
def test_what_is_no_result_is_refused(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], content: str | bytes | None, message: str
):
    files[1].unlink()
    if content is not None:
        files[1].write_bytes(content if isinstance(content, bytes) else content.encode())
    capsys.readouterr()
    assert cli.main(["bench", "--compare", *map(str, files)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert "bench --json > FILE" in err
    assert "Traceback" not in err


# Sweeps


def test_each_point_is_measured_with_its_value(
    result: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Without the child processes: what they would be told, and what is made of their answers."""
    asked: list[list[str]] = []

    def run(command: list[str], **options: Any) -> Any:
        asked.append(command)
        if "--batch-size=3" in command:
            return bench_sweep.subprocess.CompletedProcess(command, -9, "", "Compiling.\nKilled")
        point = copy.deepcopy(result)
        point["settings"]["batch_size"] = int(command[-3].partition("=")[2])
        return bench_sweep.subprocess.CompletedProcess(command, 0, json.dumps(point), "")

    monkeypatch.setattr(bench_sweep.subprocess, "run", run)
    flags = ["bench", "--horizon=3", "--sweep", "batch-size=2,3, 5", "--rounds", "2"]
    capsys.readouterr()
    assert cli.main([*flags, "--json"]) == 1, "a point failed"
    out, err = capsys.readouterr()
    points = json.loads(out)
    assert err == ""
    assert [point.get("settings", {}).get("batch_size") for point in points] == [2, None, 5]
    assert points[1] == {"error": "exit code -9: Compiling. Killed"}
    given = ["bench", "--horizon=3", "--rounds", "2", "--json"]
    for command, value in zip(asked, (2, 3, 5), strict=True):
        assert command[3:] == [*given, f"--batch-size={value}", "--rounds=2", "--json"]

    assert cli.main(flags) == 1
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if line.split()[:1] in (["2"], ["3"], ["5"])] == [
        "2",
        "3",
        "5",
    ]
    assert "batch-size 3: exit code -9: Compiling. Killed" in out


def test_a_point_that_cannot_be_measured_says_why():
    """A real child process."""
    point = bench_sweep.measure_apart(["--size=1m", "--backend=nonsense"], rounds=1)
    assert list(point) == ["error"]
    assert point["error"].startswith("exit code 2: error: Back-end 'nonsense' was asked for.")
