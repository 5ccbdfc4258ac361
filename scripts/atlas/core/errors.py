"""The one exception for mistakes that a user can mend."""


class StudyError(Exception):
    """Bad input or an impossible request: one line that names the key or file, the value, and what to do."""


def one_line(error: BaseException, kind: bool = True) -> str:
    """What another library says, on one line, cut where it is long; ``kind``: after the name of its exception."""
    text = " ".join(str(error).split())
    return (f"{type(error).__name__}: " if kind else "") + (text if len(text) <= 200 else text[:197] + "...")
