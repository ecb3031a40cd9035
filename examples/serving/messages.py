"""What the server's clients send and get, and how they are told that what they sent is wrong."""

from typing import Annotated

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, FailFast, Field

from examples.serving.digits_model import SIDE

_MOST_ERRORS = 10

# Strict: else "7", true and 3.0 would be pixels. FailFast: else a wrong image is 784 errors.
Pixel = Annotated[int, Field(ge=0, le=255, strict=True)]
Row = Annotated[list[Pixel], Field(min_length=SIDE, max_length=SIDE), FailFast()]


class Question(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(extra="forbid")

    group: str
    image: Annotated[list[Row], Field(min_length=SIDE, max_length=SIDE), FailFast()]


class Answer(BaseModel):
    """What it gets."""

    group: str
    digit: int
    scores: list[float]
    batch_size: int


async def explain(_: Request, error: Exception) -> Response:
    """The 422 for a body that is no question: where it is wrong and how, not what was sent.

    Python reads NaN and Infinity as JSON, and no JSON response can carry them back.

    Args:
        error: a RequestValidationError.
    """
    if not isinstance(error, RequestValidationError):
        raise error
    found = [
        {key: each[key] for key in ("type", "loc", "msg")} for each in error.errors()[:_MOST_ERRORS]
    ]
    return JSONResponse({"detail": found}, 422)
