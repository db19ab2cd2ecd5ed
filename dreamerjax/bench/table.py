"""Formats the results of the bench: one table, the table of a sweep, and two results side by side."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from dreamerjax.command import command
from dreamerjax.config import ConfigError

Result = Mapping[str, Any]  # what `bench.measure` returns

# The parts in the order of an update, then what happens between updates: key, words.
OF_UPDATE = (
    ("world_model_forward", "world model, forward"),
    ("imagine", "imagine"),
    ("actor_critic", "actor and critic, with gradients"),
    ("world_model_backward", "world model, backward"),
    ("optimizer", "optimizer and slow critic"),
    ("transfer", "transfer to the device"),
)
BETWEEN_UPDATES = (
    ("host_sampling", "host: sampling an update's batch"),
    ("policy_step", "policy: a step of all copies"),
    ("env_step", "CartPole: a step of all copies"),
)
# Every other figure: key, words, unit.
FIGURES = (
    ("updates_per_second", "updates", "/s"),
    ("transitions_per_second", "replayed rows", "/s"),
    ("gflop_per_update", "products in an update", "GFLOP"),
    ("matmul_peak_gflops", "peak of matrix products", "GFLOP/s"),
    ("share_of_peak", "share of that peak", ""),
    ("compile_seconds_cold", "compiling, no cache", "s"),
    ("compile_seconds_warm", "compiling, from the cache", "s"),
    ("peak_memory_mb", "most memory", "MB"),
    ("parameters", "parameters", ""),
)
UPDATE, TOGETHER, SHARE = "update_ms", "parts_together_ms", "parts_share_of_update"


def result_table(result: Result) -> Table:
    """Everything that was measured, one figure a row."""
    settings = result["settings"]
    table = _table(
        f"{work_in_words(settings)}\n{_place(result)}",
        caption=f"Median and quartiles of {settings['rounds']} rounds; compiling and memory once. Memory is of: "
        f"{result['peak_memory_of']}.",
    )
    for name in ("figure", "median", "quartiles", "unit"):
        table.add_column(name, justify="left" if name in ("figure", "unit") else "right", no_wrap=True)
    for key, words, unit in FIGURES:
        table.add_row(words, *_cells(result[key]), unit)
    table.add_section()
    for key, words in OF_UPDATE:
        table.add_row(words, *_cells(result["parts_ms"][key]), "ms")
    table.add_row("these parts together, each apart", *_cells(result[TOGETHER]), "ms", style="bold")
    table.add_row("one update, measured", *_cells(result[UPDATE]), "ms", style="bold")
    table.add_row("together / measured", *_cells(result[SHARE]), "")
    table.add_section()
    for key, words in BETWEEN_UPDATES:
        table.add_row(words, *_cells(result["parts_ms"][key]), "ms")
    return table


def sweep_table(key: str, points: Sequence[tuple[str, Result]]) -> Table:
    """What changes with one setting.

    Args:
        key: the flag that was swept, such as "batch-size".
        points: value and result; the result of a point that failed is {"error": text, ...}.
    """
    table = _table(f"bench, one process for each {key}", caption="Medians.")
    headings = ("updates/s", "rows/s", "GFLOP", "share", "update ms", "compile s", "MB")
    for name in (key, *headings):
        table.add_column(name, justify="right", no_wrap=name != key)
    keys = ("updates_per_second", "transitions_per_second", "gflop_per_update", "share_of_peak", UPDATE)
    failed = []
    for value, result in points:
        if "error" in result:
            failed.append(f"{key} {value}: {result['error']}")
            table.add_row(value, *["-"] * len(headings))
            continue
        figures = [result[name] for name in (*keys, "compile_seconds_cold", "peak_memory_mb")]
        table.add_row(value, *(_cells(figure)[0] for figure in figures))
    if failed:
        table.caption = "\n".join(["Medians. These failed:", *failed])
    return table


def read_result(path: Path) -> dict[str, Any]:
    """Reads what `bench --json` printed.

    Raises:
        ConfigError: there is no such file, it is no JSON, or no result of the bench.
    """
    advice = f"Give two files that `{command()} bench --json > FILE` wrote."
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. {advice}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}. {advice}") from error
    expected = {key for key, _, _ in FIGURES} | {"parts_ms", "settings", "device", "backend", "versions"}
    if not isinstance(result, dict) or not expected <= set(result) or not isinstance(result["settings"], dict):
        raise ConfigError(f"{path} is no result of the bench. {advice}")
    return result


def compare(a: Result, b: Result) -> dict[str, Any]:
    """Two results side by side.

    Returns:
        JSON-able: "ratios", figure -> {"a", "b", "ratio": b / a, or None where a is 0}, for every figure that both
        have (medians); and "differences", one line for each setting, device or version that is not the same.
    """
    figures_a, figures_b = dict(_figures(a)), dict(_figures(b))
    ratios = {
        name: {"a": one, "b": figures_b[name], "ratio": figures_b[name] / one if one else None}
        for name, one in figures_a.items()
        if name in figures_b
    }
    told = [{"backend": r["backend"], "device": r["device"], **r["settings"], **r["versions"]} for r in (a, b)]
    differences = [
        f"{key}: {told[0].get(key, 'missing')} in A, {told[1].get(key, 'missing')} in B"
        for key in dict.fromkeys([*told[0], *told[1]])
        if told[0].get(key, "missing") != told[1].get(key, "missing")
    ]
    return {"ratios": ratios, "differences": differences}


def comparison_table(comparison: Mapping[str, Any], a: Path, b: Path) -> Table:
    """What `compare` returned, for people."""
    caption = ["Medians. A busy machine changes its speed; share_of_peak is measured against it and can be trusted."]
    if comparison["differences"]:
        caption += ["NOT THE SAME WORK OR PLACE:", *comparison["differences"]]
    table = _table(f"A: {a}\nB: {b}", caption="\n".join(caption))
    for name in ("figure", "A", "B", "B / A"):
        table.add_column(name, justify="left" if name == "figure" else "right", no_wrap=True)
    for name, row in comparison["ratios"].items():
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.3f}"
        table.add_row(name, _number(row["a"]), _number(row["b"]), ratio)
    return table


def work_in_words(settings: Mapping[str, Any]) -> str:
    """Size 1m, float32, 16 x 64 rows, horizon 15, ..., in two lines."""
    sees = "an image" if settings["image"] else f"{settings['obs_size']} numbers"
    return (
        f"size {settings['size']}, {settings['precision']}, {settings['batch_size']} x {settings['sequence_length']} "
        f"rows, horizon {settings['horizon']}, updates per dispatch {settings['updates_per_dispatch']},\n"
        f"sees {sees}, actions {settings['actions']}, environments {settings['num_envs']}, "
        f"rows stored {settings['replay_rows']:,}"
    )


def _table(title: str, *, caption: str) -> Table:
    return Table(title=title, caption=caption, box=box.SIMPLE, title_justify="left", caption_justify="left")


def _place(result: Result) -> str:
    commit = result["git_commit"] or "outside git"
    commit = commit[:12] + ("+changes" if commit.endswith("+changes") else "")
    return (
        f"{result['backend']}: {result['device']}, jax {result['versions']['jax']},\ncommit {commit}, {result['date']}"
    )


def _figures(result: Result) -> Iterator[tuple[str, float]]:
    """Name and number of every figure; a part's name is `parts_ms.<part>`."""
    for key in (*(key for key, _, _ in FIGURES), UPDATE, TOGETHER, SHARE):
        if (number := _median(result.get(key))) is not None:
            yield key, number
    for part, figure in result["parts_ms"].items():
        if (number := _median(figure)) is not None:
            yield f"parts_ms.{part}", number


def _median(figure: Any) -> float | None:
    value = figure.get("median") if isinstance(figure, Mapping) else figure
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _cells(figure: Any) -> tuple[str, str]:
    """Median and quartiles as text."""
    median = _median(figure)
    quartiles = figure["quartiles"] if isinstance(figure, Mapping) else ()
    return "-" if median is None else _number(median), " to ".join(map(_number, quartiles))


def _number(value: float) -> str:
    """Three digits that count, or all of a whole number."""
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.1e}"
