"""Reading a sweep: valid files and errors."""

from pathlib import Path

import pytest
import yaml

from dreamerjax.config import ConfigError
from dreamerjax.study.sweep_plan import Span, SweepPlan, read_sweep

SWEEPS = Path(__file__).parents[2] / "experiments" / "sweeps"
GOOD = {
    "sweep": "Which is\nbest?",
    "kind": "grid",
    "environment": "cartpole",
    "over": {"agent.actor.learning_rate": [1e-5, "1e-4"], "agent.actor.entropy_scale": [0.1, 0.2, 0.3]},
}
POPULATION = {**GOOD, "kind": "population", "starts_from": "runs/x"}
SEARCH = {**GOOD, "kind": "search", "over": {"agent.actor.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}}}


def read(tmp_path: Path, content: dict) -> SweepPlan:
    file = tmp_path / "best.yaml"
    file.write_text(
        yaml.safe_dump({key: value for key, value in content.items() if value is not None}, sort_keys=False)
    )
    return read_sweep(file)


def test_a_grid(tmp_path: Path) -> None:
    plan = read(tmp_path, {**GOOD, "seeds": [3, 4], "settings": {"train": {"env_steps": 2000}}})
    assert (plan.name, plan.sentence) == ("best", "Which is best?")
    points = plan.grid()
    assert [tuple(point.values()) for point in points[:4]] == [(1e-5, 0.1), (1e-5, 0.2), (1e-5, 0.3), (1e-4, 0.1)]
    assert len(points) == 6
    jobs = plan.jobs(points[3])
    assert [job.config.seed for job in jobs] == [3, 4]
    assert jobs[0].config.agent.actor.learning_rate == 1e-4
    assert jobs[0].config.train.env_steps == 2000
    assert not jobs[0].config.train.stop_when_solved  # a fixed budget


def test_a_search(tmp_path: Path) -> None:
    plan = read(tmp_path, {**SEARCH, "trials": 7, "prune": True, "metric": "mean_return"})
    assert plan.over == {"agent.actor.learning_rate": Span(1e-5, 1e-3, log=True)}
    assert (plan.trials, plan.prune, plan.maximize) == (7, True, True)


def test_a_population_can_train_its_source(tmp_path: Path) -> None:
    plan = read(tmp_path, {**POPULATION, "starts_from": {"train.mode": "world_model", "train.env_steps": 3000}})
    source = plan.source
    assert not isinstance(source, Path | None)
    assert (source.train.mode, source.train.env_steps) == ("world_model", 3000)
    assert read(tmp_path, POPULATION).source == Path("runs/x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**GOOD, "sweep": None}, "`sweep` is missing"),
        ({**GOOD, "kind": "random"}, "kind is 'random', expected one of grid, search, population"),
        ({**GOOD, "sed": 1}, "unknown key `sed`. Did you mean `seeds`?"),
        ({**GOOD, "trials": 5}, "`trials` belongs to a search, but kind is grid"),
        ({**GOOD, "over": {}}, "over is {}"),
        ({**GOOD, "over": {"agent.actor.learning_rat": [1]}}, "Did you mean `agent.actor.learning_rate`"),
        ({**GOOD, "over": {"agent.actor.learning_rate": []}}, "agent.actor.learning_rate is []"),
        ({**GOOD, "over": {"agent.actor.learning_rate": {"low": 1, "high": 2}}}, "expected key: [values]"),
        ({**GOOD, "over": {"agent.actor.learning_rate": ["fast"]}}, "is 'fast', expected a number"),
        ({**GOOD, "over": {"agent.actor.learning_rate": [1e-4, -1]}}, "learning_rate is -1.0, expected 0 or more"),
        ({**GOOD, "over": {"agent.model.hidden": [32, 64]}}, "changes the model family: agent.model.hidden"),
        ({**GOOD, "seeds": []}, "seeds is []"),
        ({**GOOD, "metric": "return"}, "Unknown metric `return`"),
        ({**GOOD, "goal": "up"}, "goal is 'up', expected maximize or minimize"),
        ({**SEARCH, "over": {"agent.actor.learning_rate": {"low": 1, "high": 1}}}, "expected low < high"),
        ({**SEARCH, "over": {"agent.actor.learning_rate": {"low": 0, "high": 1, "log": True}}}, "low > 0 with log"),
        ({**SEARCH, "prune": True, "metric": "steps_to_solve", "goal": "minimize"}, "prune compares greedy returns"),
        ({**POPULATION, "starts_from": None}, "starts_from is None"),
        ({**POPULATION, "updates": 0}, "updates is 0, expected 1 or more"),
        ({**POPULATION, "over": {"train.batch_size": [8, 16]}}, "train.batch_size cannot vary in a population"),
        ({**POPULATION, "metric": "mean_return"}, "`metric` belongs to a grid or search"),
    ],
)
def test_an_invalid_sweep_gives_an_error(tmp_path: Path, content: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, content)
    assert message in str(error.value)


def test_other_families_need_new_family(tmp_path: Path) -> None:
    plan = read(tmp_path, {**GOOD, "over": {"agent.model.hidden": [32, 64]}, "new_family": True})
    assert [plan.config_of(point).agent.model.hidden for point in plan.grid()] == [32, 64]


@pytest.mark.parametrize("file", sorted(SWEEPS.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_sweeps_of_the_project_are_valid(file: Path) -> None:
    assert len(read_sweep(file).grid()) > 1
