"""What a request or an answer looks like, as JSON Schema; and the part of JSON Schema that requests are checked by."""

import math
from collections.abc import Mapping
from typing import Any

from app.api.refusing import Refused

Schema = dict[str, Any]
_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_SHOWN = 60  # characters of a wrong value that are said back


def text(help: str, **more: Any) -> Schema:
    """A string."""
    return {"type": "string", "description": help, **more}


def whole(help: str, **more: Any) -> Schema:
    """An integer."""
    return {"type": "integer", "description": help, **more}


def real(help: str, **more: Any) -> Schema:
    """A number."""
    return {"type": "number", "description": help, **more}


def flag(help: str, **more: Any) -> Schema:
    """A boolean."""
    return {"type": "boolean", "description": help, **more}


def many(items: Schema, help: str = "", **more: Any) -> Schema:
    """An array."""
    return {"type": "array", "items": items, **({"description": help} if help else {}), **more}


def maybe(schema: Schema) -> Schema:
    """The same, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def record(properties: Mapping[str, Schema], optional: tuple[str, ...] = (), help: str = "") -> Schema:
    """An object with these properties and no others; all but the optional ones have to be there."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
        **({"description": help} if help else {}),
    }


def table(values: Schema, help: str) -> Schema:
    """An object whose names are data."""
    return {"type": "object", "additionalProperties": values, "description": help}


def check(value: Any, schema: Schema, where: str) -> None:
    """Whether a value that came as JSON is what the schema says.

    Args:
        where: What it is called in messages.
    Raises:
        Refused: 422, with the place, the value and what it should be.
    """
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_is(value, kind) for kind in kinds):
        raise wrong(where, value, " or ".join(kinds))
    if "enum" in schema and value not in schema["enum"]:
        raise wrong(where, value, "one of " + ", ".join(map(str, schema["enum"])))
    if isinstance(value, str):
        _check_text(value, schema, where)
    elif isinstance(value, list):
        _check_size(len(value), schema, where, "minItems", "maxItems", "entries")
        for at, entry in enumerate(value):
            check(entry, schema["items"], f"{where}[{at}]")
    elif isinstance(value, dict):
        _check_object(value, schema, where)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(value, schema, where)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _KINDS[kind])


def _check_number(value: float, schema: Schema, where: str) -> None:
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(where, value, "a finite number")
    if not low <= value <= high:
        raise wrong(where, value, _between(low, high))


def _check_text(value: str, schema: Schema, where: str) -> None:
    _check_size(len(value), schema, where, "minLength", "maxLength", "characters")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise Refused(422, f"{where} holds half of a character", expected="whole characters", do="Send valid Unicode")


def _check_size(size: int, schema: Schema, where: str, least: str, most: str, what: str) -> None:
    low, high = schema.get(least, 0), schema.get(most, math.inf)
    if not low <= size <= high:
        raise Refused(422, f"{where} has {size:,} {what}", expected=_between(low, high), do="Change it")


def _check_object(value: dict[str, Any], schema: Schema, where: str) -> None:
    known = schema["properties"]
    for name in value:
        if name not in known:
            raise Refused(
                422, f"{where} has {short(name)}, which nothing reads", expected=", ".join(known), do="Leave it out"
            )
    for name in schema["required"]:
        if name not in value:
            raise Refused(422, f"{where} lacks {name}", expected=known[name].get("description", ""), do="Send it along")
    for name, entry in value.items():
        check(entry, known[name], f"{where}.{name}")


def _between(low: float, high: float) -> str:
    return f"{low:g} to {high:g}" if high < math.inf else f"at least {low:g}"


def wrong(where: str, value: Any, expected: str) -> Refused:
    """The error for a value that is of the wrong kind or out of its range."""
    return Refused(422, f"{where} is {short(value)}", expected=expected, do="Change it")


def short(value: Any) -> str:
    """A value for a message, in plain ASCII and never long."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**_SHOWN:
        return "a very large number"
    said = ascii(value[:_SHOWN] if isinstance(value, str | list) else value)
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."


def filled(value: Any, schema: Schema) -> Any:
    """A checked value with what its schema gives where it says nothing."""
    if isinstance(value, list):
        return [filled(entry, schema["items"]) for entry in value]
    if not isinstance(value, dict):
        return value
    properties = schema["properties"]
    given = {name: prop["default"] for name, prop in properties.items() if "default" in prop and name not in value}
    return {name: filled(entry, properties[name]) for name, entry in {**given, **value}.items()}
