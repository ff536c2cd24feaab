"""Read the body of a WSGI request.

Knows werkzeug's requests; knows nothing of what a body holds.
"""

import time
from typing import IO

from werkzeug.wrappers import Request

from serving.errors import BadRequest, RequestTooLarge

DISCARD_STEP = 256 * 1024


def whole(request: Request, limit: int) -> bytes:
    """The body of a WSGI request, read at once.

    Raises:
        BadRequest: it is cut short.
        RequestTooLarge: it has more than ``limit`` bytes.

    Not through werkzeug's limited stream, which cuts a chunked body at the limit in silence.
    """
    length = request.content_length
    if length is None and not request.environ.get("wsgi.input_terminated"):
        length = 0
    if length is not None and length > limit:
        raise RequestTooLarge(f"The body has {length} bytes. Expected at most {limit}.")
    try:
        data: bytes = request.environ["wsgi.input"].read(limit + 1 if length is None else length)
    except OSError as exc:
        raise BadRequest("The body ended before it was complete.") from exc
    if len(data) > limit:
        raise RequestTooLarge(f"The body has more than {limit} bytes.")
    if length is not None and len(data) < length:
        raise BadRequest("The body ended before it was complete.")
    return data


def discard(stream: IO[bytes], limit: int, *, seconds: float = 5.0) -> None:
    """Read what is left of a body, up to ``limit`` bytes and for about so many seconds.

    A client that sends a large body looks at the answer when it has sent it all. Closing the
    connection before that resets it, and the client never sees why.
    """
    deadline = time.monotonic() + seconds
    try:
        while limit > 0 and time.monotonic() < deadline:
            step = len(stream.read(min(limit, DISCARD_STEP)))
            if not step:
                return
            limit -= step
    except OSError:
        return
