"""The terminal display: pure parts by hand, the whole on an imitated terminal, a pipe and a real pseudo-terminal."""

import io
import math
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from dreamerjax.monitoring.panel import SHOWN_METRICS
from dreamerjax.monitoring.progress import Progress
from dreamerjax.monitoring.sparkline import BARS, sparkline
from dreamerjax.monitoring.terminal import Display
from tests.system import wait_until

SHOW_CURSOR = "\x1b[?25h"
EARLY = Progress(phase="compiling", env_steps=0, env_steps_budget=20_000, updates=0, wall_seconds=1.0)
LATE = Progress(
    phase="training",
    env_steps=6_400,
    env_steps_budget=20_000,
    updates=800,
    wall_seconds=65.0,
    env_steps_per_second=98.3,
    updates_per_second=12.31,
    returns=[10.0] * 30 + [200.0] * 10,
    eval_mean=310.2,
    eval_std=55.1,
    eval_episodes=16,
    solve_return=475.0,
    metrics={
        "train/reconstruction_loss": 12.345,
        "train/reward_loss": 0.0321,
        "train/cont_loss": 0.0004,
        "train/dynamics_loss": 1.2344,
        "train/representation_loss": 99.0,
        "train/actor_entropy": 0.512,
        "train/critic_loss": 1.87,
        "train/value_mean": 123.44,
        "train/return_scale": 35.2,
    },
)


class FakeClock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def imitated(*, terminal: bool, width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, height=40, color_system="truecolor")


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def last_picture(progress: list[Progress], width: int) -> str:
    """The panel that stays when the display closes, without escape codes."""
    console, clock = imitated(terminal=True, width=width), FakeClock()
    with Display("dreamerjax · cartpole", console=console, clock=clock) as display:
        for each in progress:
            display.update(each)
    text = Text.from_ansi(written(console)).plain
    return text[text.rindex("╭") :]


class TestSparkline:
    @pytest.mark.parametrize(
        ("values", "width", "expected"),
        [
            ([], 10, ""),
            ([1.0, 2.0], 0, ""),
            ([5.0], 10, "▄"),
            ([3.0, 3.0, 3.0], 10, "▄▄▄"),
            ([0.1] * 7, 3, "▄▄▄"),  # the means of 2 and of 3 values differ in the last bit
            ([0, 1, 2, 3, 4, 5, 6, 7], 40, "▁▂▃▄▅▆▇█"),
            ([7, 0], 40, "█▁"),
            ([-1e6, 0, 1e6], 40, "▁▅█"),
            ([0, 2, 3, 5, 6, 8], 3, "▁▅█"),  # means 1, 4, 7
            ([0, 0, 0, 7, 7, 7, 7], 3, "▁▅█"),  # parts of 2, 2 and 3: means 0, 3.5, 7
            ([0.0, math.nan, 7.0], 40, "▁ █"),
            ([0.0, math.nan, math.inf, 7.0], 2, "▁█"),
            ([math.nan], 40, " "),
        ],
    )
    def test_worked_by_hand(self, values, width, expected):
        assert sparkline(values, width) == expected

    @given(st.lists(st.floats(), max_size=100), st.integers(0, 50))
    def test_any_floats_give_one_known_character_a_part(self, values, width):
        line = sparkline(values, width)
        assert len(line) == min(len(values), width)
        assert set(line) <= {*BARS, " "}

    def test_numpy_arrays_are_series_too(self):
        assert sparkline(np.linspace(0, 1, 80).tolist(), 8) == sparkline(np.linspace(0, 1, 80), 8) == BARS  # pyright: ignore[reportArgumentType]


class TestPanel:
    @pytest.mark.parametrize("width", [60, 120])
    def test_every_field_appears_and_fits(self, width):
        later = LATE._replace(env_steps=6_900, wall_seconds=70.0)
        picture = last_picture([EARLY, LATE, later], width)
        for expected in (
            "dreamerjax · cartpole",
            "training",
            "6,900 / 20,000 steps",
            "1:10 elapsed",
            "about 2:11 left",  # 13,100 steps at 100 a second
            "98.3 steps/s",
            "12.3 updates/s",
            "800 updates",
            "200.0",  # the mean of the last 10
            "▁█",
            "310.2 ± 55.1 over 16 episodes, goal 475",
            "12.345",
            "0.032",
            "4.0e-04",
            "1.234",
            "0.512",
            "1.870",
            "123.4",
            "35.200",
            *(name for _, name, _ in SHOWN_METRICS),
        ):
            assert expected in picture
        assert "99.0" not in picture
        assert {len(line) for line in picture.splitlines() if line} == {min(width, 100)}

    @pytest.mark.parametrize("width", [30, 40, 47, 60, 80, 98, 200])
    @pytest.mark.parametrize("progress", [EARLY, LATE, LATE._replace(phase="world-model warm-up")])
    def test_no_width_breaks_it(self, width, progress):
        picture = last_picture([progress], width)
        assert max(map(len, picture.splitlines())) <= width
        assert progress.phase[:8] in picture
        assert "reconstruction" in picture

    @pytest.mark.parametrize("width", [40, 60, 100])
    def test_the_detail_of_a_phase_is_beside_it_or_below(self, width):
        progress = LATE._replace(phase="evaluating", detail="37 of 100 episodes")
        picture = last_picture([progress], width)
        assert "37 of 100 episodes" in picture
        assert ("evaluating (37 of 100 episodes)" in picture) == (width == 100)
        assert {len(line) for line in picture.splitlines() if line} == {width}

    def test_alerts_are_named_once(self):
        picture = last_picture([LATE._replace(alerts=["replay frozen", "replay frozen"])], 80)
        (line,) = [line for line in picture.splitlines() if "replay frozen" in line]
        assert line.count("replay frozen") == 1
        assert "alerts" in line
        assert "alerts" not in last_picture([LATE], 80)

    def test_the_newest_diagnosis_is_among_the_metrics(self):
        picture = last_picture([LATE._replace(metrics=LATE.metrics | {"diagnosis/value_bias": -12.5})], 80)
        assert "value bias" in picture
        assert "-12.5" in picture

    def test_extreme_numbers_do_not_break_it(self):
        shown = dict.fromkeys(LATE.metrics, math.nan) | {
            "train/value_mean": -1.5e9,
            "train/critic_loss": math.inf,
        }
        changes = {"env_steps_budget": 0, "eval_mean": -1234.5, "eval_episodes": 1, "solve_return": None}
        picture = last_picture([LATE._replace(metrics=shown, **changes)], 60)
        assert "nan" in picture
        assert "inf" in picture
        assert "-1.5e+09" in picture
        assert "-1,234.5 over 1 episode " in picture
        assert len({len(line) for line in picture.splitlines() if line}) == 1

    def test_the_clock_goes_on_between_updates(self):
        console, clock = imitated(terminal=True), FakeClock()
        with Display("x", console=console, clock=clock) as display:
            display.update(EARLY)
            clock.now += 30
        assert "0:31 elapsed" in Text.from_ansi(written(console)).plain

    def test_it_redraws_by_itself(self):
        console = imitated(terminal=True)
        with Display("x", console=console) as display:
            display.update(EARLY)
            wait_until(lambda: "compiling" in written(console))

    def test_notes_stay_above_and_the_last_words_below(self):
        console = imitated(terminal=True)
        with Display("x", console=console) as display:
            display.update(EARLY)
            display.note("resumed from step 4000 [not markup]")
            display.update(LATE)
            display.finish("The end of it.\n\n  do it again  " + "long " * 30)
        text = Text.from_ansi(written(console)).plain
        assert text.index("resumed from step 4000 [not markup]") < text.rindex("╭") < text.index("The end of it.")
        assert "  do it again  " + "long " * 30 + "\n" in text

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
    def test_errors_give_the_terminal_back(self, error):
        console, streams = imitated(terminal=True), (sys.stdout, sys.stderr)
        display = Display("x", console=console)

        def run():
            with display:
                display.update(LATE)
                raise error

        with pytest.raises(error):
            run()
        assert written(console).rstrip().endswith(SHOW_CURSOR)
        assert (sys.stdout, sys.stderr) == streams
        display.close()

    def test_nothing_to_show_is_fine(self):
        console = imitated(terminal=True)
        with Display("x", console=console):
            pass
        assert written(console).rstrip().endswith(SHOW_CURSOR)


class TestTimeLeft:
    def test_it_follows_the_recent_speed_and_forgets_the_prefill(self):
        steps = [EARLY._replace(phase="prefill", env_steps=1000 * i, wall_seconds=float(i)) for i in range(5)]
        assert "left" not in last_picture(steps, 80)
        slow = [LATE._replace(env_steps=4_000 + 10 * i, wall_seconds=5.0 + i) for i in range(101)]
        assert "about 25:00 left" in last_picture([*steps, *slow], 80)  # 15,000 steps at 10 a second
        fast = [LATE._replace(env_steps=5_000 + 100 * i, wall_seconds=105.0 + i) for i in range(100)]
        assert "about 0:51 left" in last_picture([*steps, *slow, *fast], 80)  # 5,100 steps at 100 a second

    def test_another_phase_in_between_starts_the_estimate_afresh(self):
        slow = [LATE._replace(env_steps=10 * i, wall_seconds=float(i)) for i in range(11)]
        fast = [LATE._replace(env_steps=100 + 100 * i, wall_seconds=20.0 + i) for i in range(11)]
        between = slow[-1]._replace(phase="compiling", wall_seconds=19.0)
        assert "about 3:09 left" in last_picture([EARLY, *slow, between, *fast], 80)  # 18,900 steps at 100 a second

    def test_it_is_unknown_while_nothing_moves(self):
        assert "left" not in last_picture([EARLY, LATE, LATE._replace(wall_seconds=100.0)], 80)

    def test_it_is_zero_when_the_budget_is_spent(self):
        later = LATE._replace(env_steps=20_000, wall_seconds=100.0)
        assert "about 0:00 left" in last_picture([EARLY, LATE, later], 80)

    @pytest.mark.parametrize("before", [0, 5_000])
    def test_it_waits_for_enough_updates_of_this_process(self, before):
        first = LATE._replace(updates=before, env_steps=512, wall_seconds=10.0)
        slow = [first._replace(updates=before + i, env_steps=512 + i, wall_seconds=10.0 + 20 * i) for i in range(20)]
        assert "left" not in last_picture([first, *slow], 80), "they are few, however long they took"
        fast = [
            first._replace(updates=before + 20 + i, env_steps=600 + 100 * i, wall_seconds=400.0 + i) for i in range(4)
        ]
        assert "left" not in last_picture([first, *slow, *fast], 80), "for too short a time"
        fast.append(first._replace(updates=before + 30, env_steps=1_600, wall_seconds=410.0))
        assert "about 3:04 left" in last_picture([first, *slow, *fast], 80)  # 18,400 steps at 100 a second


class TestPlainLines:
    def run(self, *progress_at: tuple[Progress, float]) -> list[str]:
        console, clock = imitated(terminal=False), FakeClock()
        with Display("x", console=console, clock=clock) as display:
            for progress, seconds in progress_at:
                clock.now = 1000 + seconds
                display.update(progress)
        return written(console).splitlines()

    def test_a_line_says_it_all_without_escape_codes(self):
        console = imitated(terminal=False, width=40)
        with Display("x", console=console) as display:
            display.update(LATE)
            display.note("resumed from step 4000")
            display.finish("one\n  two")
        assert written(console) == (
            "1:05 training | 6,400/20,000 steps (32%) | 98.3 steps/s | 12.3 updates/s | 800 updates"
            " | return 200.0 ▁▁▁▁▁▁▁▁▁▁▁▁████ | evaluation 310.2 ± 55.1 over 16 episodes, goal 475"
            " | recon 12.345 reward 0.032 cont 4.0e-04 kl 1.234 entropy 0.512 critic 1.870 value 123.4 scale 35.200\n"
            "resumed from step 4000\none\n  two\n"
        )

    def test_an_early_line_leaves_out_what_is_not_known(self):
        assert self.run((EARLY, 0)) == ["0:01 compiling | 0/20,000 steps (0%) | 0 updates"]

    def test_one_line_every_ten_seconds(self):
        assert len(self.run(*((LATE, 0.5 * i) for i in range(61)))) == 4  # at 0, 10, 20 and 30 s

    def test_each_evaluation_and_each_phase_gets_one_line(self):
        evaluating = LATE._replace(phase="evaluating")
        better = LATE._replace(eval_mean=400.0)
        solved = LATE._replace(phase="solved", eval_mean=480.0)
        lines = self.run(
            (EARLY, 0), (LATE, 1), (LATE, 2), (evaluating, 3), (better, 4), (better, 5), (evaluating, 6), (solved, 7)
        )
        assert [line.split(" | ")[0].split()[1] for line in lines] == ["compiling", "training", "training", "solved"]
        assert "evaluation 400.0" in lines[2]
        assert "evaluation 480.0" in lines[3]

    def test_lines_that_are_due_come_by_themselves_and_the_clock_goes_on(self):
        console, clock = imitated(terminal=False), FakeClock()
        with Display("x", console=console, plain_every_seconds=0.01, clock=clock) as display:
            for progress, lines in ((None, 2), (EARLY, 4)):
                if progress is not None:
                    display.update(progress)

                def have_come(lines=lines) -> bool:
                    clock.now += 1
                    return written(console).count("\n") >= lines

                wait_until(have_come)
            display.finish("the end")
            clock.now += 1
        *lines, last = written(console).splitlines()
        assert last == "the end", "no line comes after the last words"
        assert lines[0].endswith(" starting")
        assert len(lines) >= 4
        assert len(set(lines)) == len(lines), "no line comes twice"
        assert " compiling | 0/20,000 steps (0%)" in lines[-1]

    def test_work_after_the_run_is_a_phase_too(self):
        console = imitated(terminal=False)
        with Display("x", console=console) as display:
            display.update(LATE._replace(phase="solved", detail="at last"))
            with display.during("writing the report"):
                pass
            display.update(LATE._replace(phase="solved"))
        lines = [line.split(" | ")[0] for line in written(console).splitlines()]
        assert lines == ["1:05 solved (at last)", "1:05 writing the report", "1:05 solved"]

    def test_a_pipe_that_is_not_utf8_does_not_stop_the_run(self):
        for terminal in (True, False):
            raw = io.BytesIO()
            file = io.TextIOWrapper(raw, encoding="ascii")
            with Display("x", console=Console(file=file, force_terminal=terminal)) as display:
                assert not display.is_live
                display.update(LATE)
            file.flush()
            assert b"evaluation 310.2 ? 55.1" in raw.getvalue()


def test_ctrl_c_in_a_real_terminal_brings_the_cursor_back():
    script = (
        "import time\n"
        "from dreamerjax.monitoring.progress import Progress\n"
        "from dreamerjax.monitoring.terminal import Display\n"
        "with Display('x') as display:\n"
        "    display.update(Progress('training', 1, 10, 0, 0.0))\n"
        "    time.sleep(60)\n"
    )
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "PYTHONUTF8": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    os.close(theirs)
    screen = b""
    while "training" not in screen.decode(errors="ignore").rpartition("╯")[0]:  # until a whole panel is there
        screen += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    try:
        while chunk := os.read(ours, 4096):
            screen += chunk
    except OSError:  # Linux's end of file for a pseudo-terminal
        pass
    os.close(ours)
    assert process.wait() != 0
    assert screen.count(b"\x1b[?25l") == screen.count(SHOW_CURSOR.encode()) == 1
    assert screen.rindex(b"\xe2\x95\xaf") < screen.rindex(SHOW_CURSOR.encode()) < screen.rindex(b"KeyboardInterrupt")
