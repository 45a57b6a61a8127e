"""Finding what a document names in the code."""

from __future__ import annotations

import importlib


def resolve(name: str) -> object:
    """The object at a dotted path; a field of a record or a dataclass counts as there. Raises when there is none."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        module = ".".join(parts[:cut])
        try:
            found: object = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            continue
        for attribute in parts[cut:]:
            if not hasattr(found, attribute) and attribute in getattr(found, "__annotations__", {}):
                return found
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(name)
