"""metrics."""

from __future__ import annotations

from pathlib import Path

import click

from apt_ostree.cli import options, render
from apt_ostree.model.queries import Metrics


@click.command(
    epilog="Examples: apt-ostree metrics; "
    "apt-ostree metrics --output /var/lib/prometheus/node-exporter/apt-ostree.prom"
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Replace this file in one step, instead of printing.",
)
def metrics(output: Path | None) -> None:
    """Print metrics of the system in the text format of Prometheus.

    FILE is for the textfile collector of its node exporter, which reads files that end with .prom.
    apt-ostree-metrics.timer writes one every few minutes if it is enabled.
    """
    text = options.as_a_whole(Metrics())
    if output is None:
        render.lines(text.rstrip("\n"))
        return
    from apt_ostree.system import files

    files.replace_text(output, text)
