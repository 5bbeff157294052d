"""What files say of a key outside of the objects that can be counted: the last question before a key is called safe.

Used by ``keys``. Wrappings can stand where nobody meets them as an object: in values of a chart, in a block of text, in
a template, in UTF-16. So the bytes of every file are searched for the version, or the key, that is about to be called
safe. What is found and not explained blocks it. Nothing of a file but its name is ever shown.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from kmseal.cli import files
from kmseal.cli.documents import BYTES_MAX, Stream
from kmseal.cli.filetree import FileTree
from kmseal.cli.repository import is_ours
from kmseal.errors import KmsealError, Malformed
from kmseal.holdings import KeyUse, read_uses, resource_of
from kmseal.kmskey import KIND as KMS_KEY
from kmseal.manifest import KIND

_TELLING_CHARS: Final = 8
"""Shorter ids, as the versions of keys in a key file, stand in any text."""
_ENCODINGS: Final = ("utf-8", "utf-16-le", "utf-16-be")


@dataclass(frozen=True, slots=True)
class Trace:
    """A file that names a version or a key in a place that is not counted, or that could not be searched for it."""

    file: str
    use: KeyUse
    error: KmsealError


def find_traces(tree: FileTree, candidates: Collection[KeyUse]) -> Iterator[Trace]:
    """Searches all files for what is about to be called safe."""
    texts = {use: _text_of(use) for use in candidates}
    wanted = {text.encode(encoding): text for text in texts.values() for encoding in _ENCODINGS}
    for path in tree.files if wanted else ():
        try:
            met = {wanted[item] for item in files.find(path, wanted)}
            named = {text for text in met if not _is_explained(path, text)}
        except KmsealError as error:
            yield from (Trace(path, use, error) for use in candidates)
            continue
        yield from (Trace(path, use, _uncounted(text)) for use, text in texts.items() if text in named)


def _text_of(use: KeyUse) -> str:
    """What to search for: the version; where that tells nothing, the key."""
    if len(use.key_version_id) >= _TELLING_CHARS:
        return use.key_version_id
    key_id = use.key_id if use.key_id.startswith("local:") else resource_of(use.key_id)
    name = key_id.removeprefix("key/")
    return name if len(name) >= _TELLING_CHARS else key_id


def _uncounted(text: str) -> KmsealError:
    return Malformed(
        f"names {text} where it cannot be counted: perhaps in values of a chart, a block of text, a patch or a comment",
        reason="Uncounted",
        remedy="look at it: bring it up to date, or leave the file out with --exclude",
    )


def _is_explained(path: str, text: str) -> bool:
    """Whether a text stands in a file only in wrappings that are counted, in KMSKeys, or in a longer word."""
    word = re.compile(rf"(?<![A-Za-z0-9-]){re.escape(text)}(?![A-Za-z0-9-])", re.ASCII)
    if files.size(path) > BYTES_MAX:
        return False
    raw = files.read(path, limit=BYTES_MAX)
    if text.encode() in raw and not word.search(raw.decode("utf-8", "replace")):
        return True
    try:
        stream = Stream.parse(raw)
        values, objects = dict(stream.values()), list(stream.objects(KIND))
    except Malformed:
        return False
    counted: dict[int, int] = {}
    for spot, found in objects:
        if is_ours(found):
            uses = [use for use in read_uses(found) if word.search(use.key_id) or word.search(use.key_version_id)]
            counted[spot.document] = counted.get(spot.document, 0) + len(uses)
    return bool(stream.documents) and all(
        len(word.findall(stream.text, document.start, document.end)) <= counted.get(index, 0)
        or _is_kms_key(values.get(index))
        for index, document in enumerate(stream.documents)
    )


def _is_kms_key(value: object) -> bool:
    """What people say of a key needs no version of it."""
    return isinstance(value, Mapping) and value.get("kind") == KMS_KEY
