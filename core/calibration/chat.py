"""Turns conversations into the text that a model was trained to see, by its own chat template."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from jinja2.exceptions import TemplateError

from core.calibration.documents import Conversation, Document
from core.errors import CalibrationProblem, CalibrationRefusedError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def rendered(documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[str, bool]]:
    """Yields each document's text and whether it is a conversation's.

    A conversation's text opens without the beginning-of-sequence token where the tokenizer puts one in front of every
    sequence: a template that writes it too must not give a window two. Raises CalibrationRefusedError:
    NO_CHAT_TEMPLATE, MALFORMED (a conversation that the template does not take).
    """
    opens = _opens_with_bos(tokenizer)
    for number, document in enumerate(documents, start=1):
        if isinstance(document, str):
            yield document, False
            continue
        text = _render(number, document, tokenizer)
        yield (text.removeprefix(str(tokenizer.bos_token)) if opens else text), True


def _opens_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    if tokenizer.bos_token_id is None:
        return False
    ids = tokenizer("a", add_special_tokens=True)["input_ids"]
    return bool(ids) and ids[0] == tokenizer.bos_token_id


def _render(number: int, conversation: Conversation, tokenizer: PreTrainedTokenizerBase) -> str:
    if not tokenizer.chat_template:
        raise CalibrationRefusedError(
            CalibrationProblem.NO_CHAT_TEMPLATE,
            "The calibration text holds conversations, and the model's tokenizer has no chat template.",
            'Give plain text or JSON Lines with "text", or add the template to the model folder.',
        )
    try:
        text = tokenizer.apply_chat_template(conversation.to_messages(), tokenize=False)
    except TemplateError as error:
        raise CalibrationRefusedError(
            CalibrationProblem.MALFORMED,
            f"Conversation {number} of the calibration text does not suit the model's chat template: {error}.",
            "Give conversations with the roles, and in the order, that the template takes.",
        ) from error
    return str(text)
