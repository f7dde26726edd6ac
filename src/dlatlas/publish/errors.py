"""What a person can set right: reported as one message, without a traceback."""


class UserError(Exception):
    """The command cannot be carried out as it was given."""

    status = 2


class Interrupted(UserError):
    """The user has stopped the command."""

    status = 130
