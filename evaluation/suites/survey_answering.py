"""A model's answers to survey questions: sampled text that is read strictly, or the probabilities of all answers on the scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from evaluation.metrics.survey import Cell
from evaluation.metrics.survey_answers import Scale, parse_answer
from evaluation.statistics import FloatArray
from evaluation.suites.survey_items import Response, SurveyItems
from nemo_ext.common.errors import ConfigError

# The system prompt of the published evaluation (Kolluri et al. 2025, arXiv:2509.05830).
SYSTEM = (
    "You are simulating a survey respondent. Answer exactly as instructed, following the specified response format without "
    "additional commentary."
)
QUESTIONS_AT_ONCE = 1 << 12  # bounds the memory for their tokens
SNIPPET_CHARACTERS = 80


@dataclass(frozen=True)
class SurveyOptions:
    """How a model is asked. The defaults of temperature and top_p are those of the published evaluation, which asks in chats.

    answer: `generate` reads sampled text; `likelihood` takes the probabilities of all answers on the scale, each followed by
    `answer_end`, as they are (their sum made 1). chat: the prompt is a user's turn after `system`, in the tokenizer's template;
    otherwise it is continued as text after `answer_start`. unusable: what to do with responses without a usable scale.
    mapping: file with the studies of each split; train: data the model was trained on, of which no study may be judged.
    """

    answer: Literal["generate", "likelihood"] = "generate"
    prompt_field: str = "prompt"
    chat: bool = False
    system: str | None = SYSTEM
    answer_start: str = "\n"
    answer_end: str = "\n"
    temperature: float = 0.6
    top_p: float = 0.9
    samples: int = 1
    sampling_seed: int = 1234
    max_new_tokens: int = 16
    mapping: str | None = None
    train: str | None = None
    unusable: Literal["fail", "leave_out"] = "fail"
    most_per_cell: int | None = None


@dataclass(frozen=True)
class Answer:
    """What was understood of the samples for one person, and the others: (reason, beginning of the text)."""

    values: tuple[int, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class CellAnswers:
    """probabilities `[people, levels]`: rows sum to 1, or to 0 without an answer. answers: per person, () where none were sampled."""

    probabilities: FloatArray
    answers: tuple[Answer, ...] = ()
    reasons: Counter[str] = field(default_factory=Counter)
    asked: int = 0


def check_options(options: SurveyOptions, given: Sequence[str]) -> Any:
    """The sampling of `options`. Raises ConfigError for options that do not go together; `given` are the names a user set."""
    from evaluation.generation import Sampling

    if options.chat and options.answer == "likelihood":
        raise ConfigError("--set answer=likelihood scores plain text. Leave out chat=true, or choose --set answer=generate.")
    if not options.chat and "system" in given:
        raise ConfigError("--set system= is for chats, and this is plain text. Add --set chat=true.")
    if options.most_per_cell is not None and options.most_per_cell < 1:
        raise ConfigError(f"--set most_per_cell={options.most_per_cell}: expected at least 1, or none for all.")
    if options.answer == "likelihood" and not options.answer_end:
        raise ConfigError("--set answer_end= is empty, so 1 would be as likely as all answers that begin with 1. Give what ends an answer.")
    return Sampling(options.max_new_tokens, options.temperature, options.top_p, options.samples, (), options.sampling_seed)


def generate(model: Any, items: SurveyItems, options: SurveyOptions, advance: Any) -> list[CellAnswers]:
    """Answers read from sampled text. All prompts go to the model at once, which refuses too long ones before it begins."""
    from evaluation.generation import Prompt

    sampling = check_options(options, ())
    system = options.system if options.chat else None
    end = "" if options.chat else options.answer_start
    prompts = [Prompt(one.id, one.prompt + end, system, options.chat) for members in items.responses for one in members]
    written = iter(model.generate(prompts, sampling, advance))
    found = []
    for cell, members in zip(items.cells, items.responses, strict=True):
        answers = tuple(_read(next(written), cell.scale) for _ in members)
        found.append(read_answers(cell, answers))
    return found


def _read(samples: Sequence[Any], scale: Scale) -> Answer:
    parsed = [(parse_answer(one.text, one.finished, scale), one.text[:SNIPPET_CHARACTERS]) for one in samples]
    return Answer(
        tuple(value for value, _ in parsed if isinstance(value, int)),
        tuple((value, text) for value, text in parsed if isinstance(value, str)),
    )


def read_answers(cell: Cell, answers: tuple[Answer, ...]) -> CellAnswers:
    """Shares of each person's parsed answers; a person of whom none was parsed has none."""
    probabilities = np.zeros((len(answers), cell.scale.levels))
    for row, answer in enumerate(answers):
        for value in answer.values:
            probabilities[row, value - cell.scale.minimum] += 1 / len(answer.values)
    reasons = Counter(reason for answer in answers for reason, _ in answer.failures)
    return CellAnswers(probabilities, answers, reasons, sum(len(answer.values) + len(answer.failures) for answer in answers))


def likelihood(model: Any, items: SurveyItems, options: SurveyOptions, advance: Any) -> list[CellAnswers]:
    """The model's own probabilities of the answers on each scale."""
    asked = [(one, cell.scale) for cell, members in zip(items.cells, items.responses, strict=True) for one in members]
    rows: list[FloatArray] = []
    for start in range(0, len(asked), QUESTIONS_AT_ONCE):
        rows += _probabilities(model, asked[start : start + QUESTIONS_AT_ONCE], options)
        advance(float(sum(len(one.prompt.encode()) for one, _ in asked[start : start + QUESTIONS_AT_ONCE])))
    ordered = iter(rows)
    return [CellAnswers(np.stack([next(ordered) for _ in members]), asked=len(members)) for members in items.responses]


def _probabilities(model: Any, asked: Sequence[tuple[Response, Scale]], options: SurveyOptions) -> list[FloatArray]:
    """Per question `[levels]`, with sum 1."""
    from evaluation.models import Question

    questions = [
        Question(one.id, one.prompt + options.answer_start, tuple(map(str, scale.values)), options.answer_end) for one, scale in asked
    ]
    found = []
    for scores in model.option_scores(questions, lambda _: None):
        logs = np.array([score.log_likelihood for score in scores])
        shares = np.exp(logs - logs.max())
        found.append(shares / shares.sum())
    return found
