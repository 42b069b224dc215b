"""Choices of a point that are no size, such as an adapter or a backend of attention: only measured ones are answered.

Sizes change the work of an iteration, and a fit follows them. A choice may change the kernels that do it, in a way that
neither FLOPs nor bytes tell, so there is no number for one that nobody measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flopray.description import Description, Field

#: The model of a language model is no choice here: its sizes stand for it.
MODEL = "model"
#: What is said of a choice that takes none of its values.
_NONE = "none"


@dataclass(frozen=True)
class Choices:
    """Choices of a point, as texts.

    Attributes:
        words: by field, as far as they are known.
        defaults: of the workload, by field; a field without one, or with several, is missing.
    """

    words: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, description: Description | None, values: Mapping[str, Any]) -> Choices:
        """Choices of a point or a row.

        Args:
            description: of its workload; one that comes from a manifest has no defaults.
            values: by field; one that is missing is as it was before there was the field: the default.
        """
        found: dict[str, str] = {}
        defaults: dict[str, str] = {}
        for one in description.choices if description is not None else ():
            value = values.get(one.name)
            if one.name == MODEL or one.implied or (value is None and not one.optional):
                continue
            found[one.name] = _text(value)
            if (default := _default(one)) is not None:
                defaults[one.name] = default
        return cls(found, defaults)

    @property
    def unusual(self) -> dict[str, str]:
        """Those that are not their workload's default."""
        return {name: word for name, word in sorted(self.words.items()) if self.defaults.get(name) != word}

    def why_not_measured(self, measured: Sequence[Mapping[str, str]]) -> str | None:
        """Why these were not measured, as `flopray.errors.named` takes it; None where they were.

        Args:
            measured: combinations of unusual choices.
        """
        if any(self._are(known) for known in measured):
            return None
        for name in dict.fromkeys((*self.unusual, *(name for known in measured for name in known))):
            default = self.defaults.get(name, "the default")
            words = dict.fromkeys(known.get(name, default) for known in measured)
            own = self.words.get(name, default)
            if own not in words:
                return f"<{name}={own}> was not measured, but {' and '.join(f'<{name}={word}>' for word in words)}"
        return f"{', '.join(f'<{name}={word}>' for name, word in self.words.items())}: not measured together"

    def _are(self, known: Mapping[str, str]) -> bool:
        return set(self.unusual) <= set(known) and all(self.words.get(name) == word for name, word in known.items())


def measured_choices(every: Iterable[Choices]) -> list[dict[str, str]]:
    """The combinations of unusual choices that were measured, each once."""
    return [dict(pairs) for pairs in sorted({tuple(one.unusual.items()) for one in every})]


def _text(value: Any) -> str:
    if value is None:
        return _NONE
    return {True: "on", False: "off"}[bool(value)] if not isinstance(value, str) else value


def _default(one: Field) -> str | None:
    """The only value of the default grid; None where there are none or several."""
    words = one.values if one.gpu_values is None else one.gpu_values
    return _text(one.choice_words.get(words[0], words[0])) if len(words) == 1 else None
