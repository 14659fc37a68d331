"""Which backend runs a program."""

from whit.errors import WhitError


def choose_backend(backend: str, threads: int) -> str:
    """Say which backend a program takes.

    Args:
        backend: "native", "reference", or "auto" for native where it is available.
        threads: threads that one call may use.

    Returns:
        "native" or "reference".

    Raises:
        WhitError: an unknown backend, or native was asked for and is not available.
    """
    if backend not in ("auto", "native", "reference"):
        raise WhitError(f"backend '{backend}' is unknown; give 'native', 'reference' or 'auto'")
    if threads < 1:
        raise WhitError(f"threads is {threads}; give 1 or more")
    if backend == "reference":
        return "reference"
    try:
        from whit.runtime import native

        reason = native.reason()
    except ImportError as error:
        reason = str(error)
    if reason is None:
        native.isa()  # a WHIT_ISA that asks for the impossible is an error, not a fallback
        return "native"
    if backend == "native":
        raise WhitError(
            f"the native backend is not available here ({reason}); use backend='reference'"
        )
    return "reference"
