"""What can go wrong by a user's hand: each is one clear sentence, never a traceback."""


class BadInput(ValueError):
    """Input that policylab cannot use; the message names what is wrong and how to mend it. The command line exits with 2."""


class Unsupported(TypeError):
    """An object was asked for something that its kind does not have, such as a log-probability of a deterministic policy."""


class Diverged(ArithmeticError):
    """A metric stopped being finite; the message names the metric, the seed and the step."""
