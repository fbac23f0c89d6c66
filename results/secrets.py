"""What no row, log or message may hold: secrets of the environment, and passwords in addresses."""

import os
import re
from urllib.parse import quote

# Names of variables that hold secrets, and ends of names of those that say where one lies.
NAMES = re.compile("SECRET|TOKEN|PASS(W|PHRASE|$)|_PWD$|_AUTH$|CREDENTIAL|_KEY$|(API|ACCESS|PRIVATE)_?KEY")
PLACES = ("_FILE", "_PATH", "_DIR")
SHORTEST = 8  # characters: a "1" or "true" is no secret, and would be taken out everywhere
# A Path has one slash where an address has two; a secret of AWS may have slashes.
IN_ADDRESS = re.compile(r"(:/{1,2})([^/\s@]+|[^/\s:@]+:[^\s@]+)@")
HIDDEN = "…"


def without_secrets(text: str) -> str:
    """The text without values of variables that are named like secrets, and without user and password of addresses."""
    named = [value for name, value in os.environ.items() if NAMES.search(name.upper()) and not _tells_a_place(name)]
    for value in sorted(named, key=len, reverse=True):  # one may begin another
        if len(value) >= SHORTEST:
            for form in (
                value,
                repr(value)[1:-1],
                quote(value, safe=""),
            ):  # as in the repr of an environment, or in an address
                text = text.replace(form, HIDDEN)
    return IN_ADDRESS.sub(rf"\1{HIDDEN}@", text)


def _tells_a_place(name: str) -> bool:
    return name.upper().endswith(PLACES)
