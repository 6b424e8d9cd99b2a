"""Turns pydantic's errors into our form: key path, given value, allowed values, nearest known key."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from keadb.problems import MISSING, Problem, show
from keadb.site_fields import ERROR_TYPE


def translate(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Return one Problem for each error that pydantic found while it read ``model``."""
    return [_problem(item, model) for item in error.errors(include_url=False)]


def dotted(location: tuple[int | str, ...]) -> str:
    """Return a location as a key path; pydantic's marker for "the key itself" is left out."""
    return ".".join(str(part).encode("unicode_escape").decode("ascii") for part in location if part != "[key]")


def _problem(item: Any, model: type[BaseModel]) -> Problem:
    location: tuple[int | str, ...] = item["loc"]
    path, given = dotted(location), show(item["input"])
    kind = item["type"]
    if kind == ERROR_TYPE:
        return Problem(path=path, given=given, allowed=item["ctx"]["allowed"], message=item["ctx"]["message"])
    if kind == "missing":
        return Problem(path=path, given=MISSING, allowed="this key is needed", message="is missing")
    if kind == "extra_forbidden":
        keys = _keys_at(model, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), keys, n=1, cutoff=0.6)
        message = f'is not a known key; did you mean "{near[0]}"?' if near else "is not a known key"
        return Problem(path=path, given=given, allowed=", ".join(keys), message=message)
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return Problem(path=path, given=given, allowed="a mapping of keys", message="is not a mapping")
    if kind == "invalid_key":
        return Problem(path=path, given=given, allowed="text as a key", message="is under a key that is not text")
    return Problem(path=path, given=given, allowed=str(item["msg"]), message="is not valid")


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that a file may have at ``location``, in the model's order."""
    found: type[BaseModel] | None = model
    for part in location:
        field = found.model_fields.get(str(part)) if found else None
        if field is None:
            continue  # the name of a host or of an acceptance: the mapping's value type was taken already
        found = _model_in(field.annotation)
    if found is None:
        return []
    return [key for key, field in found.model_fields.items() if field.validation_alias is None]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a field holds, itself or as the values of a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in reversed(get_args(annotation)) if (found := _model_in(arg))), None)
