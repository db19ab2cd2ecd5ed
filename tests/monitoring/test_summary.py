"""The final paragraph of a run."""

from pathlib import Path

import pytest

from dreamerjax.monitoring.summary import final_paragraph

SUMMARY = {
    "env": "cartpole",
    "solved": True,
    "solved_at": {"env_steps": 14_400, "updates": 1_800, "wall_seconds": 118.2},
    "eval": {
        "episodes": 100,
        "return_mean": 498.2,
        "return_std": 6.1,
        "return_min": 450.0,
        "return_max": 500.0,
        "length_mean": 498.2,
    },
    "env_steps": 14_400,
    "updates": 1_800,
    "wall_seconds": 118.2,
    "compile_seconds": 14.2,
    "run_dir": "runs/a",
    "stopped": "solved",
    "solve_return": 475.0,
}


class TestFinalParagraph:
    def test_solved(self):
        assert final_paragraph(SUMMARY) == (
            "Solved: cartpole reaches a mean return of 498.2 ± 6.1 over 100 greedy episodes (from 450.0 to 500.0); "
            "475 counts as solved. The run took 14,400 environment steps, 1,800 updates and 1 min 58 s, 14 s of them "
            "to compile. Everything is in runs/a.\n"
            "\n"
            "  evaluate it     python run.py eval --run-dir runs/a --episodes 100\n"
            "  see its dreams  python run.py show --run-dir runs/a\n"
            "  play in them    python run.py play --run-dir runs/a\n"
            "  see the curves  tensorboard --logdir runs/a    (once: pip install tensorboard)"
        )

    def test_alerts_are_named_once_each(self):
        alerts = [{"name": "replay frozen"}, {"name": "entropy collapsed"}, {"name": "replay frozen"}]
        text = final_paragraph(SUMMARY | {"alerts": alerts})
        assert "There were 3 alerts: replay frozen, entropy collapsed (alerts.jsonl)." in text
        assert "There was an alert: replay frozen" in final_paragraph(SUMMARY | {"alerts": alerts[:1]})
        assert "alert" not in final_paragraph(SUMMARY | {"alerts": []})

    def test_remedies_are_listed_once_for_each_alert(self):
        named = {"name": "entropy collapsed"}
        alerts = [named | {"remedy": "more: --a.b 1"}, named | {"remedy": "more: --a.b 3"}, {"name": "replay frozen"}]
        text = final_paragraph(SUMMARY | {"alerts": alerts})
        assert "\n\n  against entropy collapsed: more: --a.b 3\n\n  evaluate it" in text
        assert text.count("against") == 1, "a summary of an older version has no remedies"

    @pytest.mark.parametrize(("episodes", "score"), [(1, "222.0"), (2, "222.0"), (3, "222.0 ± 6.1")])
    def test_a_standard_deviation_needs_three_episodes(self, episodes, score):
        few = SUMMARY["eval"] | {"episodes": episodes, "return_mean": 222.0}
        assert f"a mean return of {score} over" in final_paragraph(SUMMARY | {"eval": few})

    def test_a_run_that_continued_reports_when_it_was_solved(self):
        text = final_paragraph(SUMMARY | {"env_steps": 40_000, "wall_seconds": 7_270.0, "stopped": "budget"})
        assert "It was solved after 14,400 environment steps, 1,800 updates and 1 min 58 s." in text
        assert "The run took 40,000 environment steps, 1,800 updates and 2 h 1 min" in text
        assert text.startswith("Solved: ")
        worse = SUMMARY | {"eval": SUMMARY["eval"] | {"return_mean": 400.0}, "stopped": "budget"}
        assert final_paragraph(worse).startswith("Solved on the way, but not at the end: cartpole reaches")

    def test_not_solved_has_the_command_to_train_longer(self):
        failed = {"solved": False, "solved_at": None, "stopped": "budget"}
        text = final_paragraph(SUMMARY | failed | {"eval": SUMMARY["eval"] | {"return_mean": 222.0}})
        assert text.startswith("Not solved: cartpole reaches a mean return of 222.0 ± 6.1")
        assert "475 would count as solved" in text
        assert "the same command with --run-dir runs/a --env-steps 28800" in text

    @pytest.mark.parametrize("evaluation", [None, SUMMARY["eval"]])
    def test_interrupted_has_the_command_to_resume(self, evaluation):
        stopped = {"solved": False, "solved_at": None, "stopped": "interrupted", "eval": evaluation}
        text = final_paragraph(SUMMARY | stopped)
        assert text.startswith("Interrupted: ")
        assert ("has not been evaluated yet" in text) == (evaluation is None)
        assert "  resume          the same command with --run-dir runs/a\n" in text

    def test_an_environment_without_a_goal_is_finished_not_solved(self):
        finished = {"solve_return": None, "solved": False, "solved_at": None, "stopped": "budget"}
        text = final_paragraph(SUMMARY | finished)
        assert text.startswith("Finished: cartpole reaches a mean return of 498.2")
        assert "solved" not in text.lower()

    def test_commands_quote_the_folder(self):
        assert "--run-dir 'my runs/a' --episodes" in final_paragraph(SUMMARY | {"run_dir": Path("my runs/a")})

    def test_small_times_and_counts_read_well(self):
        text = final_paragraph(SUMMARY | {"wall_seconds": 7.4, "updates": 1, "compile_seconds": None})
        assert "14,400 environment steps, 1 update and 7 s. Everything" in text
