"""Every error that reading can end in. The bot and the trainer hang theirs below the same root.

DuwenError                    what a caller can report in one line; str(error) says what to do
├── DataError                 a data file is not what it should be
├── CheckpointError           a checkpoint cannot be used
│   ├── CheckpointMissing     there is nothing at that place
│   └── CheckpointBroken      it is incomplete, altered, of a foreign kind, or computes nonsense
├── ReadError                 this question cannot be read
│   └── EmptyQuestion
└── EngineError               the engine cannot take or finish an ask now
    ├── EngineBusy            too many asks are waiting
    ├── EngineTimeout         the answer did not come in time
    └── EngineClosed          the engine has been stopped
"""


class DuwenError(Exception):
    """The root: reported to people as one line, without a traceback."""


class DataError(DuwenError):
    """A data file is malformed; the message names file, entry and what was expected."""


class CheckpointError(DuwenError):
    """A checkpoint cannot be used."""


class CheckpointMissing(CheckpointError):
    """There is no checkpoint at that place."""


class CheckpointBroken(CheckpointError):
    """The checkpoint is incomplete, altered, of a foreign kind, or computes nonsense."""


class ReadError(DuwenError):
    """A question cannot be read."""


class EmptyQuestion(ReadError):
    """The question has no characters besides white space."""


class EngineError(DuwenError):
    """The engine cannot take or finish an ask now."""


class EngineBusy(EngineError):
    """Too many asks are waiting; try again in a moment."""


class EngineTimeout(EngineError):
    """The answer did not come in time."""


class EngineClosed(EngineError):
    """The engine has been stopped."""
