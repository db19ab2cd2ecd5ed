"""What a browser may ask for. Anything else is refused, with a reason."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

LARGEST_MESSAGE = 4096  # bytes
SLOWEST, FASTEST = 1.0, 60.0  # steps a second

Numbers = Annotated[list[Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]], Field(max_length=256)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Begin(_Message):
    """A new dream, from row `step` of an offered episode or from a fresh start of the environment."""

    do: Literal["begin"]
    episode: Annotated[int, Field(ge=0)] | None = None
    step: Annotated[int, Field(ge=0)] = 0


class Wheel(_Message):
    """Who acts."""

    do: Literal["wheel"]
    who: Literal["you", "agent"]


class Hold(_Message):
    """The action that is held down, [A] as the agent has it (choices one-hot); None: no key is held."""

    do: Literal["hold"]
    action: Numbers | None


class Run(_Message):
    """Time goes on, or stops."""

    do: Literal["run"]
    on: bool


class Speed(_Message):
    """Steps a second."""

    do: Literal["speed"]
    steps: Annotated[float, Field(ge=SLOWEST, le=FASTEST)]


class Step(_Message):
    """One step, under this action or, without one, under whoever is at the wheel."""

    do: Literal["step"]
    action: Numbers | None = None


class Go(_Message):
    """To a moment of the tree."""

    do: Literal["go"]
    to: Annotated[int, Field(ge=0)]


class Eyes(_Message):
    """Whether the agent sees the real environment."""

    do: Literal["eyes"]
    opened: bool


class Seen(_Message):
    """One more of the moments that were sent has been drawn, or left out for a newer one."""

    do: Literal["seen"]


class Record(_Message):
    """Starts to record, or stops and saves."""

    do: Literal["record"]
    on: bool


Message = Begin | Wheel | Hold | Run | Speed | Step | Go | Eyes | Seen | Record
_MESSAGES: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="do")])


class BadMessageError(ValueError):
    """What is wrong with a message, in one short sentence."""


def parse(text: str) -> Message:
    """Reads a message.

    Raises:
        BadMessageError: it is not one of the above.
    """
    try:
        return _MESSAGES.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadMessageError(f"{where}: {first['msg']}" if where else first["msg"]) from error
