"""`fusion thoughts list|show|search`: read a template library, and what of it a query would be given."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusion_integrations.cli.terminal import DebugOption, JsonOption, plain_table, terminal
from fusion_integrations.errors import EmptyQueryError, InvalidPolicyError

if TYPE_CHECKING:
    from rich.table import Table

    from fusion_integrations.thought_level.template_library import ThoughtTemplate, ThoughtTemplateLibrary
    from fusion_integrations.thought_level.template_store import FoundTemplate

__all__ = ["list_templates", "search_templates", "show_template"]

_MAX_CHARS = 60

_Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a saved template library.")]


def list_templates(
    folder: _Folder,
    *,
    task: Annotated[str | None, typer.Option(help="Only templates of this task.", show_default="all")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the first N.", show_default="all")
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List thought templates."""
    with terminal(as_json=as_json, debug=debug) as place:
        library = _load(folder)
        wanted = _of_task(library, task)
        shown = wanted[:limit]
        document = {
            "folder": str(folder),
            "fingerprint": library.fingerprint,
            "n_templates": len(library),
            "templates": [template.to_json() for template in shown],
        }
        place.show(
            document,
            _templates_table(shown),
            f"{len(shown)} of {len(library)} templates. One in full: fusion thoughts show '{folder}' ID",
        )


def show_template(
    folder: _Folder,
    template_id: Annotated[
        str, typer.Argument(metavar="ID", help="Id of a template, or as much of it as is unique.")
    ],
    *,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show a thought template in full, and where it comes from."""
    with terminal(as_json=as_json, debug=debug) as place:
        library = _load(folder)
        template = _find(library, template_id)
        origin = {
            "summariser": library.arguments.get("summariser"),
            "summary_prompt_version": library.arguments.get("summary_prompt_version"),
            "embedder": str(library.embedder),
            "log_fingerprint": library.log_fingerprint,
        }
        lines = [
            f"template: {template.id}",
            f"query: {template.query_id}",
            f"task: {template.task or 'unknown'}",
        ]
        lines += [f"{name.replace('_', ' ')}: {value or 'unknown'}" for name, value in origin.items()]
        place.show(
            template.to_json() | {"library": origin},
            _printable("\n".join(lines)),
            f"Query\n{_printable(template.query)}",
            f"Template\n{_printable(template.text)}",
            _sources_table(template),
        )


def search_templates(
    folder: _Folder,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The question.")],
    *,
    k: Annotated[int, typer.Option(help="Most templates for it.")] = 3,
    min_similarity: Annotated[float, typer.Option(help="Lowest similarity, from -1 to 1.")] = 0.3,
    max_chars: Annotated[int, typer.Option(help="Most characters shown of a query or template.")] = 600,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show which thought templates a query would be given, and the prompt.

    No LLM is called.
    """
    with terminal(as_json=as_json, debug=debug) as place:
        from fusion_integrations.embedders import load_embedder
        from fusion_integrations.prompts import apply_prompt_edit
        from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
        from fusion_integrations.thought_level.template_store import InMemoryThoughtTemplateStore
        from fusion_integrations.types import Message

        if not query.strip():
            raise EmptyQueryError("The query is blank. Pass at least one word.")
        library = _load(folder)
        with place.progress.status("Searching"):
            store = InMemoryThoughtTemplateStore(library, embedder=load_embedder(library.embedder))
            prompter = ThoughtPrompter(store, k=k, min_similarity=min_similarity, max_chars=max_chars)
            guidance = prompter.guide([query])[0]
        prompt = apply_prompt_edit([Message(role="user", content=query)], guidance.prompt)[0].content
        document = {
            "revision": prompter.revision,
            "found": [
                {"similarity": each.similarity, "template": each.template.to_json()}
                for each in guidance.found
            ],
            "prompt": prompt,
        }
        if guidance.found:
            place.show(document, _found_table(guidance.found), f"Prompt\n{_printable(prompt)}")
        else:
            text = f"No template has a similarity of {min_similarity:g} or more: the query is asked as it is."
            place.show(document, text)


def _load(folder: Path) -> ThoughtTemplateLibrary:
    from fusion_integrations.thought_level.template_library import ThoughtTemplateLibrary

    return ThoughtTemplateLibrary.from_pretrained(folder)


def _of_task(library: ThoughtTemplateLibrary, task: str | None) -> Sequence[ThoughtTemplate]:
    if task is None:
        return library.templates
    found = [template for template in library.templates if template.task == task]
    if not found:
        known = sorted({template.task for template in library.templates if template.task})
        message = f"No template is of task '{task}'. Known tasks: {', '.join(known) or 'none'}."
        raise InvalidPolicyError(message)
    return found


def _find(library: ThoughtTemplateLibrary, wanted: str) -> ThoughtTemplate:
    """Return the template whose id is, or alone begins with, the given text."""
    found = [template for template in library.templates if template.id.startswith(wanted)]
    exact = [template for template in found if template.id == wanted]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        some = ", ".join(f"'{template.id}'" for template in found[:3])
        message = f"{len(found)} templates have an id that begins with '{wanted}', for example {some}."
        raise InvalidPolicyError(f"{message} Give more of it.")
    message = f"No template has an id that begins with '{wanted}'. `fusion thoughts list` shows all ids."
    raise InvalidPolicyError(message)


def _templates_table(templates: Sequence[ThoughtTemplate]) -> Table:
    table = plain_table(
        "Templates",
        text_columns=("id", "task", "query", "template"),
        number_columns=("sources", "best score"),
    )
    table.columns[0].no_wrap = True  # ids are there to be copied
    for template in templates:
        table.add_row(
            _printable(template.id),
            _cut(template.task or ""),
            _cut(template.query),
            _cut(template.text),
            str(len(template.sources)),
            _best_score(template),
        )
    return table


def _best_score(template: ThoughtTemplate) -> str:
    """Write the performance of the best source, or its judge score if that is all there is."""
    if not template.sources:
        return ""
    best = template.sources[0]
    return _score(best.judge_score if best.performance is None else best.performance)


def _sources_table(template: ThoughtTemplate) -> Table:
    table = plain_table(
        "Written from the answers",
        text_columns=("candidate", "record"),
        number_columns=("performance", "judge score"),
    )
    for source in template.sources:
        table.add_row(
            _printable(source.candidate_id),
            _printable(source.record_id),
            _score(source.performance),
            _score(source.judge_score),
        )
    return table


def _found_table(found: Sequence[FoundTemplate]) -> Table:
    table = plain_table(
        "Templates found", text_columns=("id", "task", "query"), number_columns=("similarity",)
    )
    table.columns[0].no_wrap = True
    for each in found:
        template = each.template
        table.add_row(
            _printable(template.id), _cut(template.task or ""), _cut(template.query), f"{each.similarity:.3f}"
        )
    return table


def _score(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _cut(text: str) -> str:
    """Write the beginning of a text on one line."""
    line = " ".join(text.split())
    return _printable(line if len(line) <= _MAX_CHARS else f"{line[:_MAX_CHARS]} ...")


def _printable(text: str) -> str:
    """Write out control characters: a library may be anybody's, and terminals obey them."""
    return "".join(
        character
        if character in "\n\t" or not unicodedata.category(character).startswith("C")
        else character.encode("unicode_escape").decode()
        for character in text
    )
