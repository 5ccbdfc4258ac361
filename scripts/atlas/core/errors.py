"""The one exception for mistakes that a user can mend."""


class StudyError(Exception):
    """Bad input or an impossible request: one line that names the key or file, the value, and what to do."""
