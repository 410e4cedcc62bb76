"""The notice of an envelope, as a peer sends it that does not send the content."""

from protocols.envelope import Envelope, Notice


def notice_of(envelope: Envelope) -> Notice:
    return Notice(
        envelope.address, envelope.key, envelope.digest, envelope.version, envelope.author, envelope.deleted,
        envelope.parents,
    )  # fmt: skip
