"""JSON Schema, as much of it as the project's schemas use."""

import json
import re
from decimal import Decimal
from typing import Any

from .paths import ROOT

SCHEMAS = ROOT / "dataflow" / "schemas"

_TYPES = {
    "object": lambda value: isinstance(value, dict),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | Decimal) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
}
_ANNOTATIONS = {"$schema", "title", "description", "format"}


def schema_of(output: str) -> dict[str, Any]:
    return json.loads((SCHEMAS / f"{output}.json").read_text())


def parsed(text: bytes) -> Any:
    """JSON with exact numbers."""
    return json.loads(text, parse_float=Decimal)


def problems(value: Any, schema: dict[str, Any], where: str = "") -> list[str]:
    """What is wrong with a value; empty if it is valid. A keyword that is not known here is an error."""
    found = []
    for keyword, rule in schema.items():
        match keyword:
            case "type":
                types = rule if isinstance(rule, list) else [rule]
                is_valid = any(_TYPES[name](value) for name in types)
            case "const":
                is_valid = value == rule
            case "enum":
                is_valid = value in rule
            case "pattern":
                is_valid = not isinstance(value, str) or re.search(rule, value) is not None
            case "minimum":
                is_valid = not _TYPES["number"](value) or value >= rule
            case "maximum":
                is_valid = not _TYPES["number"](value) or value <= rule
            case "required":
                is_valid = all(name in value for name in rule)
            case "maxProperties":
                is_valid = len(value) <= rule
            case "properties":
                is_valid = True
                for name in rule.keys() & value.keys():
                    found += problems(value[name], rule[name], f"{where}/{name}")
            case "additionalProperties":
                is_valid = True
                for name in value.keys() - schema.get("properties", {}).keys():
                    found += problems(value[name], rule, f"{where}/{name}")
            case _:
                is_valid = keyword in _ANNOTATIONS
        if not is_valid:
            found.append(f"{where or '/'}: {keyword} {rule!r}: {value!r}"[:300])
    return found
