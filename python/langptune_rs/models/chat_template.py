"""A model's chat template: the text of a prompt around the user's message, and what ends the model's turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import TemplateError, meta
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template  # strftime_now cannot be set in another way

from langptune_rs.config.policy import OWN_ARGUMENTS, PolicyConfig
from langptune_rs.errors import ModelError, nearest, sentence

WITHOUT_THOUGHTS = {"enable_thinking": False, "thinking": False}
"""The arguments by which templates turn thinking off. A template that reads one gets it, unless the recipe sets it or
leaves thinking to the template."""
TELLS_DATE = "strftime_now"
"""What a template calls to tell the date."""
_FILES = ("chat_template.jinja", "additional_chat_templates/*.jinja", "chat_template.json", "tokenizer_config.json")
"""Where a model's folder has its templates."""
_MESSAGE, _ANSWER, _NEXT_MESSAGE = "theusersmessage", "themodelsanswer", "theusersnextmessage"
_SYSTEMS = (None, "", "You are a helpful assistant.")
"""System turns before the user's, in the order in which they are tried: some templates refuse one, some need one."""


class Prompt(NamedTuple):
    """The text of a prompt in three parts."""

    before: str
    message: str
    after: str


class ChatTemplate:
    """The chat template of a policy, with the recipe's arguments and date.

    The template is rendered with a stand-in for the user's message, so what it writes itself is known. A message is
    never taken for a part of the template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: PolicyConfig):
        """Raises `ModelError` for a template that is missing or broken, or in which no user can speak."""
        self._name = config.model
        if not tokenizer.chat_template:
            raise ModelError(
                f"The model {config.model!r} has no chat template, so it cannot be asked for a profile. "
                "Use an instruction-tuned model."
            )
        try:
            self.source: str = tokenizer.get_chat_template()
            self._template = _compile_jinja_template(self.source)
            environment = self._template.environment
            known = meta.find_undeclared_variables(environment.parse(self.source)) - {
                *OWN_ARGUMENTS,
                *environment.globals,
            }
        except (TemplateError, ValueError) as error:
            raise self._refusal(f"cannot be read: {sentence(str(error))}") from error
        self.arguments = _arguments(config, known)
        """What the template is given beside the messages."""
        now = datetime.fromisoformat(config.date)
        self._given = {**tokenizer.special_tokens_map, **self.arguments, "strftime_now": now.strftime}
        self._turns, self._frame = self._find_turns()
        spaced = self._message_in(self._render(self._turns(f" \n{_MESSAGE}\n "), asks=True)) or ""
        self._strips = spaced == _MESSAGE

    @property
    def frame(self) -> Prompt:
        """The prompt of a stand-in for a message."""
        return self._frame

    def prompt(self, message: str) -> Prompt:
        """The prompt of a one-turn chat with the user's message, up to where the model's answer starts."""
        before, _, after = self._frame
        try:
            written = self._message_in(self._render(self._turns(message), asks=True))
        except Exception:  # for all that the message says, the template writes what it wrote around the stand-in
            written = None
        if written is None:
            written = message.strip() if self._strips else message
        return Prompt(before, written, after)

    def after_answer(self) -> str:
        """What the template writes after the model's answer; empty if it writes no answers or nothing after one."""
        return self._after_answer(self._answered(), end=None)

    def before_next_message(self) -> str:
        """What the template writes between the model's answer and the next message of the user."""
        next_turn = self._turns.turn("user", _NEXT_MESSAGE)
        return self._after_answer([*self._answered(), next_turn], end=_NEXT_MESSAGE)

    def refusal_of_end(self, end: str, num_tokens: int) -> ModelError:
        """The error for a template that ends turns with a text that the tokenizer has no token for."""
        return self._refusal(
            f"ends the model's turn with {end!r}, which is no control token of its tokenizer but {num_tokens} ordinary "
            "ones, so the end of a profile cannot be seen. Add it to the tokenizer as a special token, as the model "
            "was trained with, or choose another policy.model."
        )

    def refusal_without_end(self) -> ModelError:
        """The error for a model of which nothing says how its turns end."""
        return self._refusal(
            "ends the model's turn with nothing, and neither the generation config nor the tokenizer names an "
            "end-of-turn token, so every profile would run to profile.max_tokens. Set eos_token_id in the model's "
            "generation_config.json, or choose another policy.model."
        )

    def _find_turns(self) -> tuple[_Turns, Prompt]:
        """The turns in which the template takes a user's message, and what it writes around a stand-in for it."""
        problem = ""
        for in_parts in (False, True):
            for system in _SYSTEMS:
                turns = _Turns(system, in_parts)
                try:
                    text = self._render(turns(_MESSAGE), asks=True)
                except Exception as error:  # a template may raise whatever Python does
                    problem = problem or f"raises {(str(error) or type(error).__name__)!r}"
                    continue
                if text.count(_MESSAGE) == 1:
                    before, _, after = text.partition(_MESSAGE)
                    return turns, Prompt(before, _MESSAGE, after)
                times = text.count(_MESSAGE)
                problem = problem or (f"writes the user's message {times} times" if times else "leaves it out")
        raise self._refusal(
            f"{problem.rstrip('.')} when it is given a user's message, with a system turn before it and without one. "
            "Mend chat_template.jinja (or chat_template in tokenizer_config.json) in the model's folder, or choose "
            "another policy.model."
        )

    def _message_in(self, text: str) -> str | None:
        """What stands where the message does in a rendered prompt; None if the template wrote something else around."""
        before, _, after = self._frame
        fits = len(text) >= len(before) + len(after) and text.startswith(before) and text.endswith(after)
        return text[len(before) : len(text) - len(after)] if fits else None

    def _answered(self) -> list[dict[str, Any]]:
        return [*self._turns(_MESSAGE), self._turns.turn("assistant", _ANSWER)]

    def _after_answer(self, messages: Sequence[Mapping[str, Any]], end: str | None) -> str:
        try:
            text = self._render(messages, asks=False)
        except Exception:  # the template knows no such chat
            return ""
        rest = text.rpartition(_ANSWER)[2] if _ANSWER in text else ""
        return rest.partition(end)[0] if end else rest

    def _render(self, messages: Sequence[Mapping[str, Any]], *, asks: bool) -> str:
        """The text of a chat; with `asks` up to where the model's answer starts."""
        given = {**self._given, "messages": messages, "add_generation_prompt": asks, "tools": None, "documents": None}
        return str(self._template.render(**given))

    def _refusal(self, problem: str) -> ModelError:
        return ModelError(f"The chat template of {self._name!r} {problem}")


class _Turns:
    """Messages up to the user's, in the form that a template takes."""

    def __init__(self, system: str | None, in_parts: bool):
        self._system, self._in_parts = system, in_parts

    def __call__(self, message: str) -> list[dict[str, Any]]:
        system = [] if self._system is None else [self.turn("system", self._system)]
        return [*system, self.turn("user", message)]

    def turn(self, role: str, text: str) -> dict[str, Any]:
        """One turn of a chat."""
        return {"role": role, "content": [{"type": "text", "text": text}] if self._in_parts else text}


def _arguments(config: PolicyConfig, known: set[str]) -> dict[str, Any]:
    """The recipe's arguments, and those that turn thinking off. Raises `ModelError` for one that nothing reads."""
    for name in config.template_arguments:
        if name not in known:
            raise ModelError(
                f"policy.template_arguments has {name!r}, which the chat template of {config.model!r} does not read."
                f"{nearest(name, sorted(known))} It reads {', '.join(sorted(known)) or 'nothing'}."
            )
    return {name: value for name, value in told(config).items() if name in known}


def told(config: PolicyConfig) -> dict[str, Any]:
    """The arguments that a template gets if it reads them: the recipe's, and those that turn thinking off."""
    return (WITHOUT_THOUGHTS if config.thinking == "off" else {}) | config.template_arguments


def template_text(folder: Path) -> str:
    """The files with the chat templates of the model in `folder`, as they are; empty where there are none."""
    # A template in JSON is escaped there, which changes no name that it reads.
    files = [path for pattern in _FILES for path in sorted(folder.glob(pattern))]
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)
