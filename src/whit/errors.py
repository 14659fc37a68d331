"""Every error that whit raises on purpose; standard library only, importable by every layer.

A message is one clear paragraph: what was given, what was expected, what to do next. The command
line prints it without a traceback and ends with exit code 2.
"""


class WhitError(Exception):
    """Something the user can mend: the message says what was given, expected, and what to do."""


class SpecError(WhitError):
    """A spec string cannot be read, or it names an unknown technique or option."""


class TaskError(WhitError):
    """A task is unknown, cannot be loaded, or does not fit what was asked of it."""


class DataError(WhitError):
    """A data file is missing, corrupt, or of the wrong shape."""


class SettingsError(WhitError):
    """A training setting is unknown, malformed, or out of its range."""


class ArtifactError(WhitError):
    """A .whit file is corrupt, truncated, of another version, or not a .whit file at all."""


class CannotPack(WhitError):
    """A model cannot be lowered to the packed operators.

    Args:
        reason: what is not supported and what to do about it.
        module: dotted path of the module in the model, "" for the model itself.
        operator: name of the operator that was met, "" when none is to blame.
    """

    def __init__(self, reason: str, module: str = "", operator: str = "") -> None:
        """Build the message from the module path, the operator and the reason."""
        self.reason = reason
        self.module = module
        self.operator = operator
        place = f"module '{module}'" if module else "the model"
        what = f", operator {operator}" if operator else ""
        super().__init__(f"cannot pack {place}{what}: {reason}")

    def __reduce__(self) -> tuple[type["CannotPack"], tuple[str, str, str]]:
        """Pickle by the three arguments, so that worker processes can raise it."""
        return type(self), (self.reason, self.module, self.operator)


class MissingExtra(WhitError):
    """An optional dependency is not installed.

    Args:
        extra: name of the extra of this package, for example "train".
        package: the package that could not be imported, for example "torch".
    """

    def __init__(self, extra: str, package: str) -> None:
        """Build the message that names the package and the command that installs it."""
        self.extra = extra
        self.package = package
        super().__init__(
            f"the package '{package}' is needed for this and is not installed; "
            f"install it with: pip install 'whit[{extra}]'"
        )

    def __reduce__(self) -> tuple[type["MissingExtra"], tuple[str, str]]:
        """Pickle by the two arguments, so that worker processes can raise it."""
        return type(self), (self.extra, self.package)


class NotApplicable(WhitError):
    """A technique has nothing to work on in this model or data; the message says why."""


class NoEffect(WhitError):
    """A technique ran and changed nothing."""


class TestDataSealed(WhitError):
    """The test split was read outside of the final measurement."""

    __test__ = False  # the name starts with "Test": keep pytest from collecting it


class BudgetError(WhitError):
    """A budget is malformed, or cannot be met."""
