"""Read the body of a WSGI request.

Knows werkzeug's requests; knows nothing of the content.
"""

import time
from typing import IO

from werkzeug.wrappers import Request

from serving.errors import BadRequest, RequestTooLarge

DISCARD_STEP = 256 * 1024


def whole(request: Request, limit: int) -> bytes:
    """Read the whole body.

    werkzeug's limited stream is not used: it truncates a chunked body silently at the limit.

    Raises:
        BadRequest: the body is cut short.
        RequestTooLarge: the body has more than ``limit`` bytes.
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
    """Lingering close: read the rest of a body, up to ``limit`` bytes and about ``seconds``.

    A client reads the answer only after it has sent its body. Closing the connection earlier resets
    it, and the client never sees the answer.
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
