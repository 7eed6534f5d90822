"""A measured value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value; `target` is (relation, bound) where one is set."""

    name: str
    value: float
    unit: str
    target: tuple[str, float] | None = None

    def met(self) -> bool:
        """Whether the value is as good as its target."""
        if self.target is None:
            return True
        relation, bound = self.target
        return self.value <= bound if relation == "<=" else self.value >= bound
