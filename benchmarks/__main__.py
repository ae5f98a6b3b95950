"""Runs the comparisons and writes what they found."""

from __future__ import annotations

import os
import pathlib
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence

import click
from rich import console, progress, table

from benchmarks import comparisons, plan, pool, report


def machine() -> list[str]:
    """What all ran on."""
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return [
        f"- Machine: {cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, "
        f"{int(memory[1]) / 2**20:.0f} GB, {platform.system()}; load before: "
        f"{os.getloadavg()[0]:.1f}",
    ]


def commit() -> list[str]:
    """Which code it was, where Git knows."""
    ask = ["git", "-C", str(pool.ROOT), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return []
    return [f"- Code: commit `{found}`"]


def versions() -> list[str]:
    """A line for each environment."""
    lines = []
    with pool.Pool() as workers:
        for environment in (*plan.STACKS, plan.PEERS):
            worker = workers.of(plan.Contender("", environment, ""))
            found = worker.ask("versions", name="")
            words = ", ".join(f"{name} {each}" for name, each in found.items() if name[0].isalpha())
            lines.append(f"- {plan.TITLES[environment]}: {words}")
    return lines


def show(found: Sequence[report.Limit], out: console.Console) -> None:
    """The limits of a comparison, on the terminal."""
    if not found:
        return
    rows = table.Table("what", "environment", "measured", "limit", "")
    for each in found:
        measured = "–" if each.measured is None else str(each.measured)
        style = {"holds": "green", "not measured": "yellow"}.get(each.verdict, "red")
        verdict = f"[{style}]{each.verdict.strip('*')}"
        rows.add_row(each.what, each.environment, measured, f"{each.limit:g}", verdict)
    out.print(rows)


@click.command()
@click.option("--quick", is_flag=True, help="Fewer contenders and rounds; nothing is written.")
@click.option("--only", help="Names of comparisons, or how they begin, with commas.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=pathlib.Path),
    help="Where results.md and plots/ go: docs/benchmarks/, or with options runs/benchmarks/.",
)
@click.option("--rounds", type=click.IntRange(min=1), help="Instead of each comparison's own.")
@click.option("--turn", type=click.FloatRange(min=0), help="Seconds of a turn, likewise.")
def main(quick, only, out, rounds, turn):
    """Compare tfmtl on both stacks with its peers."""
    terminal = console.Console()
    command = "make bench-quick" if quick else "make bench"
    given = {"only": only, "rounds": rounds, "turn": turn}
    options = " ".join(f"--{k} {v}" for k, v in given.items() if v is not None)
    command += f' ARGS="{options}"' if options else ""
    if out is None and not quick:
        out = pool.ROOT / ("runs" if options else "docs") / "benchmarks"
    head = [
        "# Results of the benchmarks",
        "",
        f"- Command: `{command}`, {time.strftime('%Y-%m-%d')}",
        *commit(),
        *machine(),
        *versions(),
    ]
    limits: list[report.Limit] = []
    sections: list[str] = []
    waited = idle = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        chosen = comparisons.make(quick, pathlib.Path(scratch))
        if only:
            wanted = tuple(only.split(","))
            names = [each.name for each in chosen]
            chosen = [each for each in chosen if each.name.startswith(wanted)]
            if not chosen:
                raise click.UsageError(f"--only must name some of {names}. Received: {only}")
        for comparison in chosen:
            heats = [plan.with_(heat, rounds, turn) for heat in comparison.heats]
            with pool.Pool() as workers:
                found = [watched(comparison.name, heat, workers, terminal) for heat in heats]
            waited, idle = waited + workers.waited, idle + workers.idle
            mine = list(report.limits(comparison, found))
            limits += mine
            image = f"plots/{comparison.name}.png" if out else None
            text = report.section(comparison, found, image)
            sections += text
            if quick:
                terminal.print("\n".join(text), markup=False, highlight=False)
            show(mine, terminal)
            if out:
                report.plot(comparison, found, out / image)
                share = f"{idle / max(waited, 1e-9):.2%}"
                write(out / "results.md", head, share, limits, sections)
    if out:
        terminal.print(f"Written: {out / 'results.md'}")


def watched(name: str, heat: plan.Heat, workers: pool.Pool, terminal: console.Console):
    """Run a heat and show how far it is."""
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.fields[now]}"),
    )
    with progress.Progress(*columns, console=terminal) as bar:
        words = " · ".join(filter(None, [name, heat.title]))
        task = bar.add_task(words, total=len(heat.contenders) * (heat.rounds + 3), now="")
        found = pool.run(heat, workers, lambda now: bar.update(task, advance=1, now=now))
        bar.update(task, total=bar.tasks[task].completed, now="")
        return found


def write(file: pathlib.Path, head, share: str, limits, sections) -> None:
    """The results so far: what ends early has not been for nothing."""
    lines = [
        *head,
        f"- Processes that waited for their turn took {share} of a core meanwhile.",
        "",
        "Figures are medians with quartiles in brackets; how ratios are made: "
        "[README.md](README.md).",
        "",
        "## Limits",
        "",
        *report.limit_table(limits),
        "",
        *sections,
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
