"""The messages from the browser. Anything else is rejected with a reason."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MAX_MESSAGE = 4096  # bytes
MIN_SPEED, MAX_SPEED = 1.0, 60.0  # steps per second

Numbers = Annotated[list[Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]], Field(max_length=256)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Begin(_Message):
    """Starts a new dream, from row `step` of an offered episode or from a reset of the environment."""

    do: Literal["begin"]
    episode: Annotated[int, Field(ge=0)] | None = None
    step: Annotated[int, Field(ge=0)] = 0


class Driver(_Message):
    """Selects who acts."""

    do: Literal["driver"]
    who: Literal["you", "agent"]


class Hold(_Message):
    """The action of the keys that are held down, [A] as for the agent (discrete actions one-hot); None: no key."""

    do: Literal["hold"]
    action: Numbers | None


class Run(_Message):
    """Runs or pauses."""

    do: Literal["run"]
    on: bool


class Speed(_Message):
    """Sets the steps per second."""

    do: Literal["speed"]
    steps: Annotated[float, Field(ge=MIN_SPEED, le=MAX_SPEED)]


class Step(_Message):
    """Makes one step with this action, or with that of the current driver."""

    do: Literal["step"]
    action: Numbers | None = None


class Go(_Message):
    """Goes to a moment of the tree."""

    do: Literal["go"]
    to: Annotated[int, Field(ge=0)]


class Observe(_Message):
    """Sets whether the agent observes the real environment."""

    do: Literal["observe"]
    on: bool


class Drawn(_Message):
    """Acknowledges one moment, drawn or skipped for a newer one."""

    do: Literal["drawn"]


class Record(_Message):
    """Starts a recording, or stops and saves it."""

    do: Literal["record"]
    on: bool


Message = Begin | Driver | Hold | Run | Speed | Step | Go | Observe | Drawn | Record
_MESSAGES: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="do")])


class BadMessageError(ValueError):
    """An invalid message; the text is one short sentence."""


def parse(text: str) -> Message:
    """Parses a message.

    Raises:
        BadMessageError: the message is invalid.
    """
    try:
        return _MESSAGES.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadMessageError(f"{where}: {first['msg']}" if where else first["msg"]) from error
