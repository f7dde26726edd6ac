"""What a person can set right: reported as one message, without a traceback."""


class UserError(Exception):
    """The command cannot be carried out as it was given."""
