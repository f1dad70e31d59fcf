"""The exceptions of the library: one base class, each error also a builtin that a caller would catch."""

__all__ = [
    "ClosedError",
    "CodecError",
    "CorruptFrameError",
    "CorruptLogError",
    "LockedError",
    "RegrowError",
    "SpectralAllocError",
    "StaleAddressError",
    "UnknownAddressError",
    "UntrustedError",
]


class SpectralAllocError(Exception):
    """Base class of every exception that the library itself raises."""


class CorruptFrameError(SpectralAllocError, ValueError):
    """A stored value is damaged; ``key`` names the entry where it is known, all other keys stay readable."""

    def __init__(self, message: str, key: object = None) -> None:
        super().__init__(message)
        self.key = key


class CodecError(SpectralAllocError, RuntimeError):
    """A compression library refused to compress; the value stays where it is."""


class CorruptLogError(SpectralAllocError, OSError):
    """A log file is damaged; the message names the file and the offset."""


class RegrowError(SpectralAllocError, ValueError):
    """A recipe gave something else than the value that it stands for; the message names the key, and ``key`` is it."""

    def __init__(self, message: str, key: object = None) -> None:
        super().__init__(message)
        self.key = key


class ClosedError(SpectralAllocError, ValueError):
    """The container was used after close()."""


class LockedError(SpectralAllocError, OSError):
    """Another process has the directory open for writing."""


class UntrustedError(SpectralAllocError, PermissionError):
    """Reading would execute code from a file that the caller has not declared trustworthy."""


class StaleAddressError(SpectralAllocError, KeyError):
    """The address was freed, and may since have been given to another block."""


class UnknownAddressError(SpectralAllocError, KeyError):
    """No block was ever at the address."""
