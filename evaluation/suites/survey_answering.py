"""Answers to survey questions: sampled text that is read strictly, the probabilities of all answers on the scale, or a file.

A file of predictions (JSONL or Parquet) has a record per answer: `sample_id` of the person, and `answer`, which is a number or the text
that some other program got; several records of a person are several samples. Text is read as that of a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evaluation.metrics.survey import Cell
from evaluation.metrics.survey_answers import Scale, parse_answer
from evaluation.statistics import FloatArray
from evaluation.suites.survey_items import Response, SurveyItems
from evaluation.tabular import read_rows
from nemo_ext.common.errors import ConfigError, DataError

# The system prompt of the published evaluation (Kolluri et al. 2025, arXiv:2509.05830).
SYSTEM = (
    "You are simulating a survey respondent. Answer exactly as instructed, following the specified response format without "
    "additional commentary."
)
OPTIONS_AT_ONCE = 1 << 15  # bounds the memory for their tokens; a single question may have more
SNIPPET_CHARACTERS = 80
SAMPLED = ("temperature", "top_p", "samples", "sampling_seed", "max_new_tokens")
IDLE = {"generate": ("answer_end",), "likelihood": SAMPLED}  # options that this kind of answer does not read


@dataclass(frozen=True)
class SurveyOptions:
    """How a model is asked. The defaults of temperature and top_p are those of the published evaluation, which asks in chats.

    answer: `generate` reads sampled text; `likelihood` takes the probabilities of all answers on the scale, each followed by
    `answer_end` or, in a chat, by the end token, as they are (their sum made 1). chat: the prompt is a user's turn after `system`, in
    the tokenizer's template; otherwise it is continued as text after `answer_start`. mapping: file with the studies of each split.
    train: data the model was trained on, of which no study may be judged. unusable: what to do with responses without a usable scale.
    most_per_cell: judge that many responses of a cell, to save time.
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

    if not options.chat and "system" in given:
        raise ConfigError("--set system= is for chats, and this is plain text. Add --set chat=true.")
    idle = [name for name in given if name in IDLE[options.answer] or (options.chat and name in ("answer_start", "answer_end"))]
    if idle:
        how = f"answer={options.answer}" + (" in a chat" if options.chat else "")
        raise ConfigError(f"--set {idle[0]}= would change nothing with {how}. Leave it out.")
    if options.most_per_cell is not None and options.most_per_cell < 1:
        raise ConfigError(f"--set most_per_cell={options.most_per_cell}: expected at least 1, or none for all.")
    if options.answer == "likelihood" and not options.answer_end:
        raise ConfigError("--set answer_end= is empty, so 1 would be as likely as all answers that begin with 1. Give what ends an answer.")
    return Sampling(options.max_new_tokens, options.temperature, options.top_p, options.samples, (), options.sampling_seed)


def generate(model: Any, items: SurveyItems, options: SurveyOptions, advance: Any) -> list[CellAnswers]:
    """Answers read from sampled text. All prompts go to the model at once, which refuses too long ones before it begins."""
    sampling = check_options(options, ())
    prompts = [_prompt(one, options) for members in items.responses for one in members]
    written = model.generate(prompts, sampling, advance)
    texts = {prompt.id: [(one.text, one.finished) for one in samples] for prompt, samples in zip(prompts, written, strict=True)}
    return read_texts(items, texts)


def from_file(path: Path, items: SurveyItems) -> list[CellAnswers]:
    """Answers of a file of predictions. Raises DataError unless it has an answer of everybody who is judged, and of nobody unknown."""
    known = {one.id for members in items.responses for one in members}
    texts: dict[str, list[tuple[str, bool]]] = {}
    for record in read_rows(path, ("sample_id", "answer")):
        identity, answer = str(record.fields.get("sample_id")), record.fields.get("answer")
        if isinstance(answer, bool) or not isinstance(answer, str | int | float):
            raise DataError(f"{record.place} has the answer {answer!r:.60}. Expected a number or text, empty where nothing was said.")
        if identity in known:
            texts.setdefault(identity, []).append((str(answer), True))
        elif not items.left_out:  # else it may be of those that are not judged
            raise DataError(f"{record.place} has the sample_id {identity!r}, which {items.path} has not. Expected answers to these data.")
    missing = known - set(texts)
    if missing:
        raise DataError(
            f"{path} has no answer of {len(missing):,} of the {len(known):,} persons to judge, such as sample_id {min(missing)!r}. "
            "Give a record for each, with an empty text where nothing was said."
        )
    return read_texts(items, texts)


def read_texts(items: SurveyItems, texts: Mapping[str, Sequence[tuple[str, bool]]]) -> list[CellAnswers]:
    """Answers from texts by the person's id, each with whether it was finished."""
    return [
        read_answers(cell, tuple(_read(texts[one.id], cell.scale) for one in members))
        for cell, members in zip(items.cells, items.responses, strict=True)
    ]


def _read(samples: Sequence[tuple[str, bool]], scale: Scale) -> Answer:
    parsed = [(parse_answer(text, finished, scale), text[:SNIPPET_CHARACTERS]) for text, finished in samples]
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
    asked.sort(key=lambda pair: -len(pair[0].prompt))  # what does not fit the context is refused at once, not at the end
    rows: dict[str, FloatArray] = {}
    reached = np.cumsum([scale.levels for _, scale in asked])
    for _, group in groupby(zip(reached.tolist(), asked, strict=True), key=lambda pair: pair[0] // OPTIONS_AT_ONCE):
        part = [pair for _, pair in group]
        rows |= zip((one.id for one, _ in part), _probabilities(model, part, options), strict=True)
        advance(float(sum(len(one.prompt.encode()) for one, _ in part)))
    return [CellAnswers(np.stack([rows[one.id] for one in members]), asked=len(members)) for members in items.responses]


def _probabilities(model: Any, asked: Sequence[tuple[Response, Scale]], options: SurveyOptions) -> list[FloatArray]:
    """Per question `[levels]`, with sum 1."""
    from evaluation.models import Question

    answers = [tuple(map(str, scale.values)) for _, scale in asked]
    if options.chat:
        found = model.reply_scores([_prompt(one, options) for one, _ in asked], answers, lambda _: None)
    else:
        questions = [
            Question(one.id, one.prompt + options.answer_start, values, options.answer_end)
            for (one, _), values in zip(asked, answers, strict=True)
        ]
        found = model.option_scores(questions, lambda _: None)
    return [_shares(values, scores) for values, scores in zip(answers, found, strict=True)]


def _prompt(one: Response, options: SurveyOptions) -> Any:
    from evaluation.generation import Prompt

    return Prompt(one.id, one.prompt, options.system, True) if options.chat else Prompt(one.id, one.prompt + options.answer_start)


def _shares(answers: Sequence[str], scores: Sequence[Any]) -> FloatArray:
    if any(score.unknown_tokens for score in scores):
        raise DataError(
            f"The tokenizer has no tokens for some of the answers {', '.join(answers[:5])}, ... or for what ends them, so their "
            "probabilities say nothing. Choose another --set answer_end=, or --set answer=generate."
        )
    logs = np.array([score.log_likelihood for score in scores])
    shares: FloatArray = np.exp(logs - logs.max())
    return shares / shares.sum()
