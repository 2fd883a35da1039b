"""A check as an unsigned in-toto Statement: what a signer signs to vouch for model and certificate together.

Format: in-toto attestation framework, Statement v1 (https://in-toto.io/Statement/v1). The subjects are the two
files by their SHA-256, the predicate is the `lipcert.check/v1` document. Signing is left to tools made for it.
"""

from __future__ import annotations

import hashlib
import json

from lipcert.errors import UsageError
from lipcert.files import read_whole
from lipcert.report.wording import file_name
from lipcert.results import CheckResult, FileDigest

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:lipcert:schema:check:v1"


def check_statement(result: CheckResult) -> str:
    """Return the statement that a valid check makes about its model and its certificate.

    Raises:
        UsageError: the check found something wrong, or a file has no digest of its own.
    """
    if not result.valid or not all(requirement.passed for requirement in result.requirements):
        raise UsageError("there is nothing to attest: the check did not pass")
    statement = {
        "_type": STATEMENT,
        "subject": [_subject(result.model, "model"), _subject(result.certificate, "certificate")],
        "predicateType": PREDICATE,
        "predicate": result.model_dump(mode="json", by_alias=True),
    }
    return json.dumps(statement, indent=2, ensure_ascii=False) + "\n"


def _subject(file: FileDigest | None, what: str) -> dict[str, object]:
    if file is None or file.sha256 is None:
        raise UsageError(f"there is nothing to attest: the {what} was not read from a file")
    if hashlib.sha256(read_whole(file.path, what)).hexdigest() != file.sha256:
        # the digest of a model covers its external data too, and such a digest is no file's
        raise UsageError(
            f"'{file.path}' keeps its weights in other files, or changed meanwhile: attest a model that is one file"
        )
    return {"name": file_name(file.path), "digest": {"sha256": file.sha256}}
