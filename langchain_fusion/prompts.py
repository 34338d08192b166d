"""Thought templates before a query, as a step of a chain: the prompt mode `thought` without a router."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import ConfigDict

from fusion_integrations.errors import EmptyQueryError
from fusion_integrations.thought_level.template_prompt import ThoughtPrompter
from fusion_integrations.types import Query
from langchain_fusion._convert import edit_last_user_message, to_core, to_messages

__all__ = ["ThoughtTemplatePrompt"]


class ThoughtTemplatePrompt(RunnableSerializable[LanguageModelInput, ChatPromptValue]):
    """Puts the thought templates of similar solved queries before the last user message.

    It takes what a chat model takes and gives what a chat model takes, so it fits between a prompt and any
    model. System messages, earlier turns, images and other content stay as they are; where no template is
    similar enough, so does the query. `batch` embeds all its queries at once.

    Attributes:
        prompter: Finds and lays out the templates.

    Example:
        ```python
        thoughts = ThoughtTemplatePrompt(prompter=ThoughtPrompter(store))
        chain = prompt | thoughts | model | StrOutputParser()
        ```
    """

    prompter: ThoughtPrompter

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @property
    def InputType(self) -> Any:  # noqa: N802  # the framework's name
        """What a query may be."""
        return LanguageModelInput

    @property
    def OutputType(self) -> type[ChatPromptValue]:  # noqa: N802  # the framework's name
        """What comes out."""
        return ChatPromptValue

    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> ChatPromptValue:
        """Put templates before a query.

        Args:
            input: A text, a prompt value or messages.
            config: The run's config.
            **kwargs: None are known.

        Returns:
            The messages, the last user message with the templates.

        Raises:
            EmptyQueryError: If the last user message has no text.
        """
        return self._call_with_config(self._guide, input, config, **kwargs)

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> ChatPromptValue:
        """Put templates before a query without blocking the event loop; otherwise as `invoke`."""
        return await self._acall_with_config(self._aguide, input, config, **kwargs)

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[ChatPromptValue]:
        """Put templates before several queries with one search.

        Args:
            inputs: The queries.
            config: One config for all, or one each.
            return_exceptions: Whether a query without text gives its error instead of raising it.
            **kwargs: None are known.

        Returns:
            One prompt a query, in their order.

        Raises:
            EmptyQueryError: As `invoke`, unless `return_exceptions`.
        """
        return self._batch_with_config(
            cast("Any", self._guide_batch), inputs, config, return_exceptions=return_exceptions, **kwargs
        )

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[ChatPromptValue]:
        """Put templates before several queries without blocking the event loop; otherwise as `batch`."""
        return await self._abatch_with_config(
            cast("Any", self._aguide_batch), inputs, config, return_exceptions=return_exceptions, **kwargs
        )

    def _guide(self, input: LanguageModelInput) -> ChatPromptValue:
        (result,) = self._guide_batch([input])
        if isinstance(result, Exception):
            raise result
        return result

    async def _aguide(self, input: LanguageModelInput) -> ChatPromptValue:
        return await asyncio.to_thread(self._guide, input)

    def _guide_batch(self, inputs: list[LanguageModelInput]) -> list[ChatPromptValue | Exception]:
        conversations = [to_messages(input) for input in inputs]
        texts = [_query_text(messages) for messages in conversations]
        guidances = iter(self.prompter.guide([text for text in texts if isinstance(text, str)]))
        return [
            text
            if isinstance(text, EmptyQueryError)
            else ChatPromptValue(messages=edit_last_user_message(messages, next(guidances).prompt))
            for messages, text in zip(conversations, texts, strict=True)
        ]

    async def _aguide_batch(self, inputs: list[LanguageModelInput]) -> list[ChatPromptValue | Exception]:
        return await asyncio.to_thread(self._guide_batch, inputs)


def _query_text(messages: list[BaseMessage]) -> str | EmptyQueryError:
    """Return the text by which a conversation's templates are searched, or why it has none."""
    try:
        return Query(messages=to_core(messages)).text
    except EmptyQueryError as error:
        return error
