"""What a model call can fail with besides the client library's own errors."""


class StreamEnded(Exception):
    """The stream ended before the answer was complete."""


class StreamMalformed(Exception):
    """The stream is no sequence of chat-completion chunks; the text says what was wrong."""


class StreamSilent(Exception):
    """No event for too long; comments do not count."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no event for {seconds:g} seconds")


class ErrorFrame(Exception):
    """The provider reported an error inside a stream that began well."""

    def __init__(self, payload: object) -> None:
        super().__init__("the provider sent an error in the stream")
        self.payload = payload
        """The value of the frame's `error`: an object, a text, anything."""


class NoModelApi(Exception):
    """A web page came where a stream should: the base URL is wrong."""
