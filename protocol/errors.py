"""Who is to blame is in the type of the error.

`LocalProtocolError`: we broke a rule (a bug or an impossible request of ours).
`RemoteProtocolError`: a peer's bytes or signatures broke one; never fatal to the node.
`Ignore` and `Reject` are the two ways in which a message can fail validation.
"""


class FolkmootError(Exception):
    """Base of every error that Folkmoot raises on purpose; the command line exits with `exit_code`."""

    exit_code = 1


class LocalProtocolError(FolkmootError):
    """This node broke, or was asked to break, a rule of the protocol."""


class RemoteProtocolError(FolkmootError):
    """A peer sent something that no honest node sends."""


class CharterError(FolkmootError):
    """A charter that cannot be read, is not signed by all, or does not say what it must."""

    exit_code = 2


class Ignore(FolkmootError):
    """The message is of no use here and now (stale, early, already seen); nobody is to blame."""


class Forgotten(Ignore):
    """A signature of this node's own turned up that its journal lacks: it must not sign what it may contradict."""


class Reject(RemoteProtocolError):
    """The message breaks a rule: its sender is at fault."""
