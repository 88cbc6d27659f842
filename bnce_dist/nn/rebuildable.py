"""Networks that say how to build them again."""

import inspect
from typing import Any, Self

from torch import nn


class Rebuildable(nn.Module):
    """A network that remembers the arguments of its constructor, also those left to defaults."""

    _config: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Note the arguments; a copy or a pickle gives none, and brings those of its original."""
        model = super().__new__(cls)
        given = inspect.signature(cls.__init__).bind_partial(model, *args, **kwargs)
        given.apply_defaults()
        model.__dict__["_config"] = dict(list(given.arguments.items())[1:])
        return model

    def config(self) -> dict[str, Any]:
        """Return the arguments that rebuild this architecture, as plain types."""
        return dict(self._config)
