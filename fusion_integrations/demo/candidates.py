"""Who can answer in the demo, how each is prompted, and what that is declared to cost."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fusion_integrations.demo.models import GEMMA, SMOLLM2, STUDENT, few_shot_examples
from fusion_integrations.prompts import prompt_edit
from fusion_integrations.types import Candidate, GenerationOptions, Price, PriceTable

__all__ = [
    "BASE_CANDIDATES",
    "DEMO_CANDIDATES",
    "DEMO_OPTIONS",
    "DEMO_PRICES",
    "DEMO_STUDENTS",
    "LEVEL_CANDIDATES",
]

# The revisions of the artifacts that ship with the demo; a test compares them with the artifacts themselves.
_LIBRARY_REVISION = "thought-1+d8c5bc0bb875a5cc+k2+s0.3+c300"
_STUDENT_REVISION = "4dfe365e4d4a118a"

# The LLMs as they come: what templates and the student are made from.
BASE_CANDIDATES: tuple[Candidate, ...] = (
    Candidate(
        id="smollm2:direct",
        model=SMOLLM2,
        prompt_mode="direct",
        revision=prompt_edit("direct").revision,
        description="SmolLM2-135M-Instruct, asked as is: cheap and quick.",
    ),
    Candidate(
        id="smollm2:reasoning",
        model=SMOLLM2,
        prompt_mode="reasoning",
        revision=prompt_edit("reasoning").revision,
        description="SmolLM2-135M-Instruct, asked to think first: several times the tokens.",
    ),
    Candidate(
        id="gemma3:few-shot",
        model=GEMMA,
        prompt_mode="direct",
        revision=f"{prompt_edit('direct').revision}+few-shot-{few_shot_examples()[1]}",
        description="Gemma-3-270M, a base model shown six examples: long prompts, terse answers.",
    ),
)

# The same small LLM after thought-level and after model-level fusion.
LEVEL_CANDIDATES: tuple[Candidate, ...] = (
    Candidate(
        id="smollm2:thought",
        model=SMOLLM2,
        prompt_mode="thought",
        revision=_LIBRARY_REVISION,
        description="SmolLM2-135M-Instruct, shown templates of similar solved queries: long prompts.",
    ),
    Candidate(
        id="student:direct",
        model=STUDENT,
        prompt_mode="direct",
        revision=f"{prompt_edit('direct').revision}+{_STUDENT_REVISION}",
        description="SmolLM2-135M-Instruct fine-tuned on the best answers of all three: cheap and terse.",
    ),
)

DEMO_CANDIDATES = BASE_CANDIDATES + LEVEL_CANDIDATES

# Base model by student model.
DEMO_STUDENTS: Mapping[str, str] = MappingProxyType({STUDENT: SMOLLM2})

DEMO_OPTIONS: Mapping[str, GenerationOptions] = MappingProxyType(
    {
        "smollm2:direct": GenerationOptions(max_tokens=48),
        "smollm2:reasoning": GenerationOptions(max_tokens=160),
        "gemma3:few-shot": GenerationOptions(max_tokens=24, stop=("\n",)),
        "smollm2:thought": GenerationOptions(max_tokens=48),
        "student:direct": GenerationOptions(max_tokens=48),
    }
)

# Nominal: nobody is billed. The ratio follows the models' sizes, the level that of small hosted models.
DEMO_PRICES = PriceTable(
    prices=MappingProxyType(
        {
            SMOLLM2: Price(input_usd_per_mtok=0.02, output_usd_per_mtok=0.04, is_nominal=True),
            STUDENT: Price(input_usd_per_mtok=0.02, output_usd_per_mtok=0.04, is_nominal=True),
            GEMMA: Price(input_usd_per_mtok=0.04, output_usd_per_mtok=0.08, is_nominal=True),
        }
    )
)
