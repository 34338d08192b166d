"""The program `fusion`: its verbs, each written in a file of its own.

Verbs import the core when they run, so that `fusion --help` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from fusion_integrations import __version__
from fusion_integrations.cli.benchmark import benchmark_router
from fusion_integrations.cli.collect import collect
from fusion_integrations.cli.demo import demo
from fusion_integrations.cli.doctor import doctor
from fusion_integrations.cli.evaluate import evaluate_router
from fusion_integrations.cli.inspect import inspect
from fusion_integrations.cli.logs_dedupe import dedupe
from fusion_integrations.cli.logs_export import export
from fusion_integrations.cli.logs_import import import_logs
from fusion_integrations.cli.logs_migrate import migrate
from fusion_integrations.cli.logs_prune import prune
from fusion_integrations.cli.logs_split import split
from fusion_integrations.cli.logs_stats import stats
from fusion_integrations.cli.route import route
from fusion_integrations.cli.score import score
from fusion_integrations.cli.thoughts import list_templates, search_templates, show_template
from fusion_integrations.cli.train_router import train_router
from fusion_integrations.cli.train_student import train_student
from fusion_integrations.cli.train_thoughts import train_thoughts

__all__ = ["app"]


def _group(help_text: str) -> typer.Typer:
    # Plain help and tracebacks: what users paste into an issue should survive the paste.
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


app = _group("Learn from multi-LLM logs which LLM should answer.")
_logs = _group("Bring logs in, look at them, keep them in order, take them out.")
_train = _group("Train on logs.")
_evaluate = _group("Evaluate on held-out logs.")
_benchmark = _group("Measure what learning is worth on logs of your own.")
_thoughts = _group("Read thought templates.")

app.command()(demo)
app.command()(collect)
app.command()(score)
app.add_typer(_logs, name="logs")
_logs.command("import")(import_logs)
_logs.command()(stats)
_logs.command()(export)
_logs.command()(split)
_logs.command()(dedupe)
_logs.command()(prune)
_logs.command()(migrate)
app.add_typer(_train, name="train")
_train.command("router")(train_router)
_train.command("thoughts")(train_thoughts)
_train.command("student")(train_student)
app.add_typer(_evaluate, name="evaluate")
_evaluate.command("router")(evaluate_router)
app.add_typer(_benchmark, name="benchmark")
_benchmark.command("router")(benchmark_router)
app.command()(route)
app.add_typer(_thoughts, name="thoughts")
_thoughts.command("list")(list_templates)
_thoughts.command("show")(show_template)
_thoughts.command("search")(search_templates)
app.command()(inspect)
app.command()(doctor)


# A group of one verb would otherwise take the place of its verb: `fusion evaluate ARTIFACT`.
@_evaluate.callback()
@_benchmark.callback()
def _keep_group() -> None: ...


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fusion-integrations {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...
