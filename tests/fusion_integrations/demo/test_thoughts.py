"""The demo's template library and student are what its candidates say they are."""

from __future__ import annotations

import pytest

from fusion_integrations.demo.candidates import LEVEL_CANDIDATES
from fusion_integrations.demo.demo_log import load_demo_logs, teaching_logs
from fusion_integrations.demo.models import smollm2_folder, student_client
from fusion_integrations.demo.tasks import generate_tasks
from fusion_integrations.demo.thoughts import demo_library, demo_prompter
from fusion_integrations.logs.fingerprint import log_fingerprint
from fusion_integrations.thought_level.template_checks import find_rejection, own_answers
from fusion_integrations.thought_level.template_config import ThoughtTemplateTrainingArguments

THOUGHT, STUDENT = LEVEL_CANDIDATES


def test_library_when_loaded_then_made_of_the_teaching_logs_alone():
    library = demo_library()

    assert library.log_fingerprint == log_fingerprint(teaching_logs(load_demo_logs()))
    taught = {query.query_id for query in generate_tasks().teaching}
    assert {template.query_id for template in library.templates} <= taught


def test_library_when_checked_again_then_no_template_tells_its_answer():
    references = {query.query_id: query.reference for query in generate_tasks().teaching}
    arguments = ThoughtTemplateTrainingArguments()

    rejected = [
        template.id
        for template in demo_library().templates
        if find_rejection(
            template.text,
            query=template.query,
            answers=own_answers(references[template.query_id], ()),
            arguments=arguments,
        )
    ]

    assert rejected == []


def test_library_when_counted_then_kept_and_dropped_add_up():
    library = demo_library()

    assert library.metrics["n_kept"] == len(library)
    assert library.metrics["n_solved"] == len(library) + sum(library.metrics["n_dropped"].values())


@pytest.mark.real_model
def test_prompter_when_loaded_then_its_revision_is_the_candidates():
    assert demo_prompter().revision == THOUGHT.revision


@pytest.mark.real_model
@pytest.mark.slow
def test_student_when_loaded_then_its_revision_is_the_candidates_and_its_lessons_the_teaching_logs():
    student = student_client(n_threads=1)

    assert STUDENT.revision.endswith(f"+{student.revision}")
    assert student.log_fingerprint == log_fingerprint(teaching_logs(load_demo_logs()))
    assert smollm2_folder().is_dir()
