"""Which wrappings of an object change, and under what: decided first, then asked for.

Used by ``rewrap``. What is decided needs descriptions of keys only, so that a dry run asks for nothing else. It never
writes, and it changes nothing but wrappings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from kmseal.cli.bulk import Treated
from kmseal.cli.documents import Edit
from kmseal.cli.inflight import RewrapService
from kmseal.cli.report import Change, Outcome
from kmseal.cli.splices import PlacedWrapping
from kmseal.envelope import DataKeyId
from kmseal.errors import AccessDenied, KmsealError, Malformed
from kmseal.holdings import KeyUse
from kmseal.kms.provider import KeyDescription
from kmseal.manifest import Algorithm, DataKey, EncryptedSecret, Wrapping

_RIGHTS: Final = "kms:ReEncryptFrom on the old key and kms:ReEncryptTo on the new one, or kms:Decrypt and kms:Encrypt"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. Without any of these, wrappings under older versions are wrapped under the primary one."""

    to_key: str = ""
    """A key or an alias that wrappings are moved to."""
    from_key: str = ""
    """Only wrappings under this key are moved."""
    add_keys: tuple[str, ...] = ()
    remove_keys: tuple[str, ...] = ()

    @property
    def is_refresh(self) -> bool:
        """Whether only versions are to be brought up to date."""
        return not (self.to_key or self.add_keys or self.remove_keys)


@dataclass(frozen=True, slots=True)
class Step:
    """A wrapping that is to be wrapped anew, moved or added (``old`` is None)."""

    old: Wrapping | None
    new: KeyDescription

    def expected(self) -> Wrapping:
        """What can be said of the result beforehand; it is never written."""
        local = self.new.key_id.startswith("local:")
        algorithm = Algorithm.LOCAL_AES_256_GCM if local else Algorithm.KMS_SYMMETRIC
        return Wrapping(self.new.key_id, self.new.primary_version, algorithm, b"not yet wrapped")


class Rewrapping:
    """Treats objects as ``Request`` says."""

    needs_namespace = False

    def __init__(self, service: RewrapService, request: Request, *, dry_run: bool) -> None:
        self._service = service
        self._request = request
        self._dry_run = dry_run
        self.met: set[str] = set()
        """The keys of all wrappings that were read."""

    async def treat(self, encrypted: EncryptedSecret) -> Treated:
        """Raises KmsealError where nothing can be done for the object.

        In a refresh, a wrapping that cannot be wrapped anew, as in a region that is down, does not keep the others
        from it: it stays as it is, and its failure is reported beside the changes.
        """
        self.met.update(wrapping.key_id for data_key in encrypted.data_keys for wrapping in data_key.wrappings)
        if self._request.to_key:
            require_one_source(encrypted, self._request, (await self._service.describe(self._request.to_key)).key_id)
        failures: list[KmsealError] = []
        renewed: dict[DataKeyId, tuple[Wrapping, ...]] = {}
        for index, data_key in enumerate(encrypted.data_keys):
            place = f"spec.dataKeys[{index}]"
            if self._request.is_refresh:
                wrappings = await self._refresh(encrypted, data_key, place, failures)
            else:
                wrappings = await self._rearrange(encrypted, data_key, place)
            renewed[data_key.id] = wrappings
        return treated(encrypted, renewed, failures, write=not self._dry_run)

    async def _refresh(
        self, encrypted: EncryptedSecret, data_key: DataKey, place: str, failures: list[KmsealError]
    ) -> tuple[Wrapping, ...]:
        wrappings = []
        for index, wrapping in enumerate(data_key.wrappings):
            try:
                wrappings.append(await self._fresh(encrypted, wrapping))
            except KmsealError as error:
                failures.append(_located(error, f"{place}.wrappings[{index}]"))
                wrappings.append(wrapping)
        return tuple(wrappings)

    async def _fresh(self, encrypted: EncryptedSecret, wrapping: Wrapping) -> Wrapping:
        # An asymmetric key has no primary version: each one stays until its wrappings are sealed anew.
        if wrapping.algorithm is Algorithm.RSAES_OAEP_SHA_256:
            return wrapping
        description = await self._service.describe(wrapping.key_id)
        # A key whose material is gone has no primary version; what its wrappings need is the material back.
        if description.primary_version in ("", wrapping.key_version_id):
            return wrapping
        return await self._wrap(encrypted, Step(wrapping, description))

    async def _rearrange(self, encrypted: EncryptedSecret, data_key: DataKey, place: str) -> tuple[Wrapping, ...]:
        """Moves, adds and removes. All is decided before the first request, so that none is spent in vain."""
        request = self._request
        steps: list[Wrapping | Step] = list(data_key.wrappings)
        if request.to_key:
            steps = list(move(data_key, await self._target(request.to_key), request.from_key))
        for key in request.add_keys:
            target = await self._target(key)
            if target.key_id in request.remove_keys:
                raise Malformed(
                    f"{key} is {target.key_id}, which is to be removed",
                    field="--add-key",
                    reason="Contradiction",
                    remedy="add it, or remove it",
                )
            if not any(wrapping.key_id == target.key_id for wrapping in data_key.wrappings):
                steps.append(Step(None, target))
        steps = [step for step in steps if _key_of(step) not in request.remove_keys]
        if not steps:
            raise Malformed(
                "would have no wrapping left",
                field=f"{place}.wrappings",
                reason="WrappingCount",
                remedy="add another key first, with --add-key",
            )
        # The reader's own limits, before anything is asked for.
        expected = tuple(step.expected() if isinstance(step, Step) else step for step in steps)
        DataKey.parse(replace(data_key, wrappings=expected).to_dict(), place)
        wrappings = []
        for step in steps:
            if isinstance(step, Wrapping):
                wrappings.append(step)
                continue
            try:
                wrappings.append(await self._wrap(encrypted, step, data_key))
            except KmsealError as error:
                raise _located(error, f"{place}.wrappings") from None
        return tuple(wrappings)

    async def _target(self, key: str) -> KeyDescription:
        try:
            target = await self._service.describe(key)
        except KmsealError as error:
            error.field = error.field or key
            raise
        if target.asymmetric:
            raise Malformed(
                f"{target.key_id} is an asymmetric key, which wraps by its public half only",
                field="--to-key" if key == self._request.to_key else "--add-key",
                reason="AsymmetricKey",
                remedy="seal to it with kmseal rotate --public-key FILE",
            )
        return target

    async def _wrap(self, encrypted: EncryptedSecret, step: Step, data_key: DataKey | None = None) -> Wrapping:
        """One new wrapping; ``data_key`` is needed for what is moved or added."""
        if self._dry_run:
            return step.expected()
        key, context = step.new.key_id, encrypted.place.encryption_context()
        sources = (step.old,) if step.old else data_key.wrappings if data_key else ()
        is_bound = all(source.algorithm is not Algorithm.RSAES_OAEP_SHA_256 for source in sources)
        try:
            if step.old is not None and is_bound:
                return await self._service.rewrap(step.old, key, context, description=step.new)
            opened = await self._service.unwrap(sources, context)
            if data_key and not is_bound:
                # Sealed to a public key, a wrapping is bound to no place. Copied from another object into this file, it
                # would be given this object's context, and whoever may open this one could open what it came from.
                encrypted.require_own(data_key.id, opened.data_key)
            return await self._service.wrap(key, opened.data_key, context)
        except AccessDenied as error:
            rights = "kms:Decrypt on a key that the object has and kms:Encrypt on this one"
            raise AccessDenied(
                error.message,
                field=key,
                reason=error.reason,
                remedy=f"ask for {_RIGHTS if step.old else rights}",
                request_id=error.request_id,
            ) from None


def require_one_source(encrypted: EncryptedSecret, request: Request, target: str) -> None:
    """Refuses to guess which of several wrappings is meant to move."""
    if request.from_key:
        return
    sources = {wrapping.key_id for data_key in encrypted.data_keys for wrapping in data_key.wrappings}
    if len(sources - {target}) > 1 or any(len(data_key.wrappings) > 1 for data_key in encrypted.data_keys):
        raise Malformed(
            f"has wrappings under {len(sources)} keys: {', '.join(sorted(sources))}",
            field="spec.dataKeys",
            reason="SeveralKeys",
            remedy="say with --from-key which ones are to be moved",
        )


def move(data_key: DataKey, target: KeyDescription, from_key: str) -> Sequence[Wrapping | Step]:
    """The wrappings of a data key when those under ``from_key`` (all, where it is empty) are under the target.

    Where it is wrapped by the target already, a wrapping that would be moved there just goes.
    """
    present = next((wrapping for wrapping in data_key.wrappings if wrapping.key_id == target.key_id), None)
    moved: list[Wrapping | Step] = []
    for wrapping in data_key.wrappings:
        if wrapping is present:
            moved.append(wrapping if wrapping.key_version_id == target.primary_version else Step(wrapping, target))
        elif from_key and wrapping.key_id != from_key:
            moved.append(wrapping)
        elif present is None:
            moved.append(Step(wrapping, target))
    return moved


def treated(
    encrypted: EncryptedSecret,
    renewed: Mapping[DataKeyId, Sequence[Wrapping]],
    failures: Sequence[KmsealError] = (),
    *,
    write: bool,
    unchanged: Outcome = Outcome.CURRENT,
) -> Treated:
    """What new wrappings, by data key, mean for the object.

    ``unchanged`` is the outcome where they are the old ones. Raises Malformed where the result could not be read.
    """
    changes: list[Change] = []
    edits: dict[str, Sequence[PlacedWrapping]] = {}
    for data_key in encrypted.data_keys:
        placed = place_wrappings(data_key.wrappings, renewed[data_key.id])
        found = list(_changes(data_key, placed))
        if found:
            changes += found
            edits[data_key.id] = [(index, wrapping.to_dict()) for index, wrapping in placed]
    outcome = Outcome.CHANGED if changes else Outcome.FAILED if failures else unchanged
    return Treated(outcome, tuple(changes), Edit(wrappings=edits) if changes and write else None, tuple(failures))


def place_wrappings(old: Sequence[Wrapping], new: Sequence[Wrapping]) -> list[tuple[int | None, Wrapping]]:
    """Which old wrapping's place in the text each new one takes: that of its key, else of one that goes, else none.

    The order is that of the old ones; it means nothing to a reader, and so the text changes least.
    """
    by_key = {wrapping.key_id: index for index, wrapping in enumerate(old)}
    places = {wrapping.key_id: by_key[wrapping.key_id] for wrapping in new if wrapping.key_id in by_key}
    free = iter([index for index in range(len(old)) if index not in places.values()])
    placed = [
        (places[wrapping.key_id] if wrapping.key_id in places else next(free, None), wrapping) for wrapping in new
    ]
    return sorted(placed, key=lambda item: len(old) if item[0] is None else item[0])


def _changes(data_key: DataKey, placed: Sequence[tuple[int | None, Wrapping]]) -> Sequence[Change]:
    kept = {index for index, _ in placed}
    gone = [wrapping for index, wrapping in enumerate(data_key.wrappings) if index not in kept]
    changes = []
    for index, wrapping in placed:
        old = None if index is None else data_key.wrappings[index]
        if old != wrapping:
            changes.append(Change(data_key.id, KeyUse.of(old) if old else None, KeyUse.of(wrapping)))
    return [*changes, *(Change(data_key.id, KeyUse.of(wrapping), None) for wrapping in gone)]


def _key_of(step: Wrapping | Step) -> str:
    return step.key_id if isinstance(step, Wrapping) else step.new.key_id


def _located(error: KmsealError, place: str) -> KmsealError:
    error.field = f"{place}: {error.field}" if error.field else place
    return error
