"""What calibration text is made of: plain texts, and conversations that a model's chat template turns into text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MESSAGES_FORM = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side of a conversation says. role: as the chat template knows it: system, user, assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in their order, at least one."""

    turns: tuple[Turn, ...]

    def to_messages(self) -> list[dict[str, str]]:
        """Returns the form that chat templates take."""
        return [{"role": turn.role, "content": turn.content} for turn in self.turns]


Document = str | Conversation


def conversation_from(messages: Any) -> Conversation | None:  # noqa: ANN401 - whatever JSON held
    """Returns the conversation that a `messages` value is, None where it is none."""
    if not isinstance(messages, list) or not messages:
        return None
    turns = []
    for message in messages:
        if not isinstance(message, dict):
            return None
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            return None
        turns.append(Turn(role, content))
    return Conversation(tuple(turns))


def text_of(document: Document) -> str:
    """Returns what the document says, without what a chat template would add."""
    if isinstance(document, str):
        return document
    return "\n".join(turn.content for turn in document.turns)
